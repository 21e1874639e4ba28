"""MixCL: label-aware contrastive pre-training for medical image segmentation, as a reproducible companion.

Importing the package is light: what is named below is imported when it is first asked for, torch and MONAI with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixcl import losses as losses
    from mixcl import sampler as sampler
    from mixcl.config import load_profile as load_profile
    from mixcl.model import MixCL as MixCL
    from mixcl.objective import Objective as Objective
    from mixcl.segment import predict as predict
    from mixcl.trainer import finetune as finetune
    from mixcl.trainer import pretrain as pretrain

__version__ = "0.1.0"
_HOMES = {
    "load_profile": "config", "MixCL": "model", "Objective": "objective", "finetune": "trainer", "predict": "segment",
    "pretrain": "trainer",
}  # fmt: skip
__all__ = ["MixCL", "Objective", "finetune", "load_profile", "losses", "predict", "pretrain", "sampler"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mixcl.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"mixcl.{name}")
    raise AttributeError(f"module 'mixcl' has no attribute {name!r}")
