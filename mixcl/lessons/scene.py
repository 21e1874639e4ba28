"""What every walk-through notebook begins with: prepared scans, a pair of patches, a slider."""

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixcl import batches
from mixcl.batches import Batch, PairDataset
from mixcl.config.settings import Collection, Experiment
from mixcl.data.prepare.run import prepare
from mixcl.data.registry import collections, folder
from mixcl.data.store import Case, Store
from mixcl.errors import InputError
from mixcl.figures import ct
from mixcl.illustration import common
from mixcl.model import LABEL_LEVEL, level_edges

CANDIDATES = 16  # first samples of the stream, of which one is shown
SERVED = ("JPY_SESSION_NAME", "VSCODE_PID")  # set where a person has the notebook open


class Pair(NamedTuple):
    """P_1 and P_2 as they are cut, before any distortion."""

    raw: dict[str, Tensor]  # an item of PairDataset: image float32 [2, 1, E, E, E] in [0, 1], label uint8 [2, E, E, E]
    places: Sequence[tuple[Case, Sequence[int]]]  # scan and first voxel of each
    grid: Tensor  # labels on the label level's grid (R12), uint8 [2, e, e, e]
    origin: str  # what is common to all pictures of the pair
    names: dict[int, str]  # label value -> organ by ascending value, of the collection that both come from
    spacing: tuple[float, float, float]  # of their voxels, mm
    slice: int  # the axial slice of P_1 with most labelled voxels


def ready(config: Experiment, out: Path) -> Store:
    """The prepared collections of the settings, which are prepared now (phantoms made first) unless they are there.

    An InputError as in :func:`mixcl.data.prepare.run.prepare`.
    """
    store = partial(Store, config.data.store_dir(out), collections(config.data), config.data)
    with suppress(InputError):
        return store()
    prepare(config, out, progress=False)
    return store()


def example(config: Experiment, out: Path) -> tuple[Path, Collection]:
    """Folder and description of the first pre-training collection, as files: what a reader's own would be."""
    name = config.data.pretrain[0]
    ready(config.model_copy(update={"data": config.data.model_copy(update={"pretrain": (name,), "finetune": ()})}), out)
    collection = collections(config.data)[name]
    title = f"{name} as mine" + (", phantoms" if config.data.source == "phantom" else "")
    return folder(collection, config.data.raw_dir(out)), collection.model_copy(update={"root": "", "title": title})


def origin(config: Experiment, store: Store) -> str:
    """What is common to all pictures of a notebook: profile, voxel size, seed and data, and whether of patients."""
    spacing = " x ".join(f"{mm:g}" for mm in config.data.spacing)
    data = store.fingerprint(store.collections)[:12]
    text = f"All pictures: profile {config.profile}, voxels of {spacing} mm, seed {config.pretrain.seed}, data {data}."
    return text + (" Phantoms, not patients." if config.data.source == "phantom" else "")


def choose(config: Experiment, store: Store, names: Sequence[str] = ()) -> Pair:
    """Of a stream's first `CANDIDATES` samples, the first with the most labels in common and most labelled voxels.

    ``names`` are as in :func:`pair_dataset`.  An InputError where no patches have a label in common on the label
    level's grid, which may lose what is thin.
    """
    pairs, edge = pair_dataset(config, store, names), level_edges(config.model)[LABEL_LEVEL]

    def alike(item: dict[str, Tensor]) -> tuple[bool, int, int]:
        return common(batches.coarse(item["label"], edge))[0] > 0, *common(item["label"])

    raw = max((pairs[k] for k in range(CANDIDATES)), key=alike)
    if not alike(raw)[0]:
        text = f"in none of the first {CANDIDATES} samples both patches have a label"
        raise InputError(f"{text}; set a larger model.patch")
    grid = batches.coarse(raw["label"], edge)
    places = pairs.places(int(raw["sample"]))
    cases = " and ".join(f"P_{k} from {case.collection}, case {case.id}" for k, (case, _) in enumerate(places, 1))
    text = f"{origin(config, store)}\n{cases}; where nothing is said, the axial slice with most labelled voxels."
    case = places[0][0]
    index = ct.choose_slice(raw["label"][0].numpy())
    return Pair(raw, places, grid, text, dict(sorted(case.names.items())), case.spacing, index)


def pair_dataset(config: Experiment, store: Store, names: Sequence[str] = ()) -> PairDataset:
    """The stream of patches cut from some collections, () is those of the pre-training; it has no end to speak of."""
    return PairDataset([case for name in names or config.data.pretrain for case in store.cases(name)], config, 2**31)


def richest(config: Experiment, store: Store) -> str:
    """The collection of the settings that labels most organs; of equal ones the first."""
    return max(collections(config.data), key=lambda name: len(store.cases(name)[0].names))


def batch(config: Experiment, *raw: dict[str, Tensor], **views: float) -> Batch:
    """Items of :class:`mixcl.batches.PairDataset` as a pre-training step has them: distorted, pixels drawn.

    ``views`` replaces fields of ``config.views``: with ``spatial_prob=0`` pixels lie where the patch as cut has them.
    """
    config = config.model_copy(update={"views": config.views.model_copy(update=views)})
    drawn = [item | {"pixels": batches.draw_pixels(item["label"], int(item["sample"]), config)} for item in raw]
    return batches.pretraining_batch(batches.collate(drawn), config, torch.device("cpu"))


def slider(draw: Callable[..., Any], /, **controls: Any) -> None:
    """Show ``draw`` under controls where a person has the notebook open, else a line; they start at its defaults.

    Controls have the forms of ``ipywidgets.interact``; a list of numbers is a slider with these stops, and one more
    where it starts.
    """
    if not any(name in os.environ for name in SERVED):
        print("Open this notebook in JupyterLab for the slider.")
        return
    import ipywidgets

    for name, stops in controls.items():
        if isinstance(stops, list):
            at = inspect.signature(draw).parameters[name].default
            controls[name] = ipywidgets.SelectionSlider(options=sorted({*stops, at}), value=at)
    for child in ipywidgets.interact(draw, **controls).widget.children:
        if hasattr(child, "continuous_update"):
            child.continuous_update = False  # a figure a stop, not a figure a pixel
