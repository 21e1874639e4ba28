"""Random 96^3 patches with labels from scans of 512 x 512 x 200 voxels: the store against nibabel and MONAI.

The store keeps the voxel size of the scans, so every side holds the same voxels.  A patch is an image scaled to [0, 1]
and its label map.  One process, one core, sides in turn.  Memory is that of a process of its own a side; what the
kernel may drop at any time, pages of mapped files, is told apart from what it may not (anonymous memory).

    python reproduce/bench/patches.py --work /tmp/scans --out patches.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import formats
import numpy as np
import scans
import sides

from mixcl.batches import SegmentationDataset
from mixcl.config.settings import Experiment
from mixcl.data.prepare.run import prepare
from mixcl.data.store import Case, Store

AT_ONCE = {"ours": 40, "nibabel": 1, "nibabel, slices": 1, "monai": 4, "monai, labels": 4, "monai, no copy": 20}
"""Patches a timing."""


def main() -> None:
    parser = sides.arguments(__doc__, repeats=7)
    scans.options(parser, 4, "scans; each takes MONAI's cache 420 MB")
    parser.add_argument("--cubes", type=int, default=60, help="patches cut from every format")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = sides.parsed(parser)
    with scans.folder_of(args) as work:
        data = scans.write(work / "raw", args.volumes)
        config = Experiment(data=data.model_copy(update={"spacing": scans.SPACING, "store": str(work / "store")}))
        prepare(config, work, workers=args.threads, progress=False)
        if args.memory_of:
            print(json.dumps(_memory(args.memory_of, config, args.volumes)))
            return
        _measure(config, work, args)


def _measure(config: Experiment, work: Path, args: argparse.Namespace) -> None:
    """Time and weigh all sides, compare formats, report."""
    held = {name: _in_own_process(name, work, args) for name in ("ours", "monai")}
    ready = {name: side(name, config) for name in AT_ONCE}
    times = sides.seconds({n: partial(_several, draw, AT_ONCE[n]) for n, draw in ready.items()}, args.repeats)
    each = {name: [t / AT_ONCE[name] for t in spent] for name, spent in times.items()}
    print(f"a patch: {sides.medians(each)}")
    for name, found in held.items():
        print(f"{name}, MB: " + ", ".join(f"{what} {value:.0f}" for what, value in found.items()))
    ratios = {f"patches-{n.replace(', ', '-').replace(' ', '-')}": sides.times_faster(each[n], each["ours"])
              for n in each if n != "ours"}  # fmt: skip
    ratios["patches-memory"] = held["monai"]["resident"] / held["ours"]["resident"]
    ratios["patches-memory-anonymous"] = held["monai"]["anonymous"] / held["ours"]["anonymous"]
    ready.clear()
    pairs = [(case.image(), case.label()) for case in _cases(config)]
    stores = formats.compare(pairs, work / "formats", config.model.patch, args.cubes)
    sides.report(
        "patches", args, ratios, shape=scans.SHAPE, volumes=args.volumes, patch=config.model.patch,
        seconds_a_patch=each, megabytes=held, formats=stores,
    )  # fmt: skip


def side(name: str, config: Experiment) -> Callable[[int], object]:
    """A function that gives patch number k."""
    if name == "ours":
        return SegmentationDataset(_cases(config), config, seed=0, length=1 << 30).__getitem__
    files = _files(config)
    if name.startswith("nibabel"):
        return partial(_by_nibabel, files, config, name == "nibabel, slices")
    return _by_monai(files, config, name)


def _cases(config: Experiment) -> tuple[Case, ...]:
    return Store(config.data.store_dir(Path()), ["bench"]).cases("bench")


def _files(config: Experiment) -> list[dict[str, str]]:
    root = config.data.raw_dir(Path()) / "bench"
    names = sorted(path.name for path in (root / "imagesTr").glob("c*.nii.gz"))
    return [{"image": str(root / "imagesTr" / name), "label": str(root / "labelsTr" / name)} for name in names]


def _by_nibabel(files: Sequence[dict[str, str]], config: Experiment, slices: bool, index: int) -> tuple[Any, Any]:
    """Read both files and cut a cube; with ``slices`` they are read no further than the cube reaches."""
    import nibabel as nib

    rng, patch, (low, high) = np.random.default_rng(index), config.model.patch, config.data.hu
    pair = files[index % len(files)]
    image, label = nib.load(pair["image"]), nib.load(pair["label"])
    box = tuple(slice(o, o + patch) for o in (int(rng.integers(n - patch + 1)) for n in image.shape))
    cut = [part.dataobj[box] if slices else np.asarray(part.dataobj)[box] for part in (image, label)]
    return ((cut[0].astype(np.float32) - low) / (high - low)).clip(0, 1), np.array(cut[1])


def _by_monai(files: Sequence[dict[str, str]], config: Experiment, name: str) -> Callable[[int], object]:
    """The usual chain, every scan in memory; ``no copy`` asks the cache not to copy a scan before a cube is cut."""
    from monai import transforms as mt
    from monai.data import CacheDataset

    keys, size, (low, high) = ("image", "label"), (config.model.patch,) * 3, config.data.hu
    crop: Any = mt.RandSpatialCropd(keys, size, random_size=False)
    if name == "monai, labels":
        crop = mt.RandCropByPosNegLabeld(keys, "label", size, pos=1, neg=1, num_samples=1)
    chain = [
        mt.LoadImaged(keys), mt.EnsureChannelFirstd(keys),
        mt.ScaleIntensityRanged("image", low, high, 0.0, 1.0, clip=True), crop,
    ]  # fmt: skip
    cache = CacheDataset(files, mt.Compose(chain), num_workers=1, progress=False, copy_cache=name != "monai, no copy")
    return lambda index: _whole(cache[index % len(files)], keys)


def _whole(item: Any, keys: Sequence[str]) -> list[Any]:
    """Image and labels as arrays of their own: a cube that MONAI cuts may be a mere view of the scan."""
    item = item[0] if isinstance(item, list) else item
    return [item[key].contiguous() for key in keys]


def _several(draw: Callable[[int], object], count: int, first: list[int] = [0]) -> None:  # noqa: B006
    """Draw the next ``count`` patches; none is drawn twice."""
    for _ in range(count):
        draw(first[0])
        first[0] += 1


def _memory(name: str, config: Experiment, volumes: int) -> dict[str, float]:
    """MB that this process holds for its patches, beyond what it held after its imports."""
    before = _held()
    draw = side(name, config)
    _several(draw, 30 * volumes)
    after = _held()
    return {key: after[key] - before[key] for key in after} | {"process, resident": after["resident"]}


def _held() -> dict[str, float]:
    """MB of this process: all resident, anonymous, and of mapped files."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    kb = {line.split(":")[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith(("VmRSS", "Rss"))}
    return {"resident": kb["VmRSS"] / 1e3, "anonymous": kb["RssAnon"] / 1e3, "mapped": kb["RssFile"] / 1e3}


def _in_own_process(name: str, work: Path, args: argparse.Namespace) -> dict[str, float]:
    own = [sys.executable, __file__, "--work", str(work), "--volumes", str(args.volumes), "--memory-of", name]
    found: dict[str, float] = json.loads(subprocess.run(own, check=True, capture_output=True, text=True).stdout)
    return found


if __name__ == "__main__":
    main()
