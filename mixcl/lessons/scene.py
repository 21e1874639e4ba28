"""What every walk-through notebook begins with: prepared scans, a pair of patches, a network before and after."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from torch import Tensor

from mixcl import batches, trainer
from mixcl.batches import Batch, PairStream
from mixcl.config.settings import Collection, Experiment
from mixcl.data.prepare.run import prepare
from mixcl.data.registry import collections, folder
from mixcl.data.store import Case, Store
from mixcl.errors import InputError
from mixcl.figures import sample
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import STYLE, Sketch, plain
from mixcl.model import LABEL_LEVEL, MixCL, level_edges, seeded
from mixcl.run import checkpoint, record

CANDIDATES = 16  # first samples of the stream, of which one is shown
SERVED = ("JPY_SESSION_NAME", "VSCODE_PID")  # set where a person has the notebook open


class Pair(NamedTuple):
    """P_1 and P_2 as they are cut, before any distortion.

    ``raw``: an item of :class:`mixcl.batches.PairStream`, image float32 [2, 1, E, E, E] in [0, 1], label uint8
    [2, E, E, E].  ``places``: scan and first voxel of each.  ``grid``: labels on the label level's grid (R12), uint8
    [2, e, e, e].  ``origin``: what a caption says of profile and data.
    """

    raw: dict[str, Tensor]
    places: Sequence[tuple[Case, Sequence[int]]]
    grid: Tensor
    origin: str

    @property
    def names(self) -> dict[int, str]:
        """Label value -> organ by ascending value, of the collection that both patches come from."""
        return dict(sorted(self.places[0][0].names.items()))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the patches, mm."""
        return self.places[0][0].spacing

    @property
    def slice(self) -> int:
        """The axial slice of P_1 with most labelled voxels."""
        return choose_slice(self.raw["label"][0].numpy())

    @property
    def first(self) -> str:
        """What a caption says of P_1."""
        case = self.places[0][0]
        return f"$P_1$: {case.collection}, case {plain(case.id)}"


@contextmanager
def sketch(width: float, height: float) -> Iterator[Sketch]:
    """A figure of this size, inches, to draw on in the package's style."""
    with matplotlib.rc_context(STYLE):
        yield Sketch(figsize=(width, height), layout="constrained")


def ready(config: Experiment, out: Path) -> Store:
    """The prepared collections of the settings, which are prepared now (phantoms made first) unless they are there.

    An InputError as in :func:`mixcl.data.prepare.run.prepare`.
    """
    wanted = tuple(dict.fromkeys((*config.data.pretrain, *config.data.finetune)))
    with suppress(InputError):
        return Store(config.data.store_dir(out), wanted, config.data)
    prepare(config, out, progress=False)
    return Store(config.data.store_dir(out), wanted, config.data)


def example(config: Experiment, out: Path) -> tuple[Path, Collection]:
    """Folder and description of the first pre-training collection, as files: what a reader's own would be.

    Nothing else is prepared.  The title says what it stands for, and that it is of phantoms when it is.
    """
    name = config.data.pretrain[0]
    ready(config.model_copy(update={"data": config.data.model_copy(update={"pretrain": (name,), "finetune": ()})}), out)
    collection = collections(config.data)[name]
    title = f"{name} as mine" + (", phantoms" if config.data.source == "phantom" else "")
    return folder(collection, config.data.raw_dir(out)), collection.model_copy(update={"root": "", "title": title})


def origin(config: Experiment, store: Store) -> str:
    """The stamp of a caption: profile, voxel size, seed and data, and whether these are patients.

    Code and settings are those of the notebook, so that no commit is named.
    """
    spacing = " x ".join(f"{mm:g}" for mm in config.data.spacing)
    data = store.fingerprint(store.collections)[:12]
    text = f"Profile {config.profile}, voxels of {spacing} mm, seed {config.pretrain.seed}, data {data}."
    return text + (" Phantoms, not patients." if config.data.source == "phantom" else "")


def choose(config: Experiment, store: Store, names: Sequence[str] = ()) -> Pair:
    """Of a stream's first `CANDIDATES` samples, the one to look at.

    It is the one whose patches have most labels in common; of those, most labelled voxels in the patch with fewer; of
    those, the first.  ``names`` are as in :func:`pair_stream`.  An InputError where no patches have a label in common.
    """
    pairs = pair_stream(config, store, names)
    items = [pairs[k] for k in range(CANDIDATES)]
    number = max(range(CANDIDATES), key=lambda k: (*sample.common(items[k]["label"]), -k))
    if not sample.common(items[number]["label"])[0]:
        raise InputError(
            f"in none of the first {CANDIDATES} samples both patches have a label; set a larger model.patch"
        )
    grid = batches.coarse(items[number]["label"], level_edges(config.model)[LABEL_LEVEL])
    return Pair(items[number], pairs.places(number), grid, origin(config, store))


def pair_stream(config: Experiment, store: Store, names: Sequence[str] = ()) -> PairStream:
    """The stream of patches cut from some collections, () is those of the pre-training; it has no end to speak of."""
    return PairStream([case for name in names or config.data.pretrain for case in store.cases(name)], config, 2**31)


def richest(config: Experiment, store: Store) -> str:
    """The collection of the settings that labels most organs; of equal ones the first."""
    names = dict.fromkeys((*config.data.pretrain, *config.data.finetune))
    return max(names, key=lambda name: len(store.cases(name)[0].names))


def batch(config: Experiment, *raw: dict[str, Tensor], **views: float) -> Batch:
    """Items of :class:`mixcl.batches.PairStream` as a pre-training step has them: distorted, pixels drawn.

    ``views`` replaces fields of ``config.views``: with ``spatial_prob=0`` pixels lie where the patch as cut has them.
    """
    if views:
        config = config.model_copy(update={"views": config.views.model_copy(update=views)})
    drawn = [item | {"pixels": batches.draw_pixels(item["label"], int(item["sample"]), config)} for item in raw]
    return batches.pretraining_batch(batches.collate(drawn), config, torch.device("cpu"))


def trained(config: Experiment, out: Path, steps: int, job: str) -> tuple[MixCL, str]:
    """The network after pre-training, and what to call that.

    The profile's own pre-training (OUT/runs/pretrain) is taken where it is finished and fits ``config.model``; else
    that of :func:`briefly`.
    """
    own = out / "runs" / "pretrain"
    if (own / checkpoint.WEIGHTS).is_file():
        weights, card = checkpoint.read_weights(own)
        if card.get("model") == config.model.model_dump(mode="json"):
            return _network(config, weights), f"after {record.read_card(own)['steps']} steps"
    return briefly(config, out, steps, job)


def briefly(config: Experiment, out: Path, steps: int, job: str) -> tuple[MixCL, str]:
    """The network after ``steps`` of pre-training as OUT/runs/``job``, now or before, and what to call that."""
    quick = {"steps": steps, "epochs": None, "log_every": 1, "gradients_every": 0, "checkpoint_every": steps}
    short = config.model_copy(update={"pretrain": config.pretrain.model_copy(update=quick)})
    run = trainer.pretrain(short, out, job=job, restart="changed", progress=False)
    return _network(config, checkpoint.read_weights(run)[0]), f"after {steps} steps"


def untrained(config: Experiment) -> MixCL:
    """The network with the weights that pre-training starts from."""
    with seeded(config.pretrain.seed):
        return MixCL(config)


def slider(draw: Callable[..., Any], /, **controls: Any) -> None:
    """Show ``draw`` under controls (``ipywidgets.interact`` has their forms) where a person has the notebook open.

    A notebook that runs as a job shows a line in its place: its figures are those without controls.
    """
    if not any(name in os.environ for name in SERVED):
        print("Open this notebook in JupyterLab for the slider.")
        return
    import ipywidgets

    for child in ipywidgets.interact(draw, **controls).widget.children:
        if hasattr(child, "continuous_update"):
            child.continuous_update = False  # a figure a stop, not a figure a pixel


def _network(config: Experiment, weights: dict[str, Tensor]) -> MixCL:
    model = MixCL(config)
    model.load_state_dict(weights)
    return model
