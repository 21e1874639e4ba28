"""MixCL: label-aware contrastive pre-training for medical image segmentation, as a reproducible companion.

Importing the package is light; torch and MONAI are imported by the modules that use them.
"""

from __future__ import annotations

__version__ = "0.1.0"
