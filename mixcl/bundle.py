"""A fine-tuned network as a MONAI bundle: metadata, inference by MONAI alone, weights, and a model card.

``facts`` is everywhere the description that `mixcl.export.about` gives.  A bundle is a folder::

    configs/metadata.json      as MONAI's bundle specification has it; written last
    configs/inference.json     python -m monai.bundle run --config_file configs/inference.json
    models/model.safetensors   weights, with the description; what mixcl reads
    models/model.pt            the same for MONAI's tools, which ask for it
    README.md, LICENSE         a model card in Hugging Face's form; what is known of the licence
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mixcl.errors import InputError
from mixcl.files import whole, write_json, write_text
from mixcl.metrics import class_values
from mixcl.run.checkpoint import write_weights
from mixcl.run.record import WEIGHTS

MODELS, METADATA, INFERENCE = "models", "configs/metadata.json", "configs/inference.json"
OWN = {"models", "configs", "LICENSE", "README.md"}
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
LINEAR = {"mode": "bilinear", "padding_mode": "border"}
INTENDED = "Research only: it has not been approved, or tested, for any use on patients."


def write_bundle(to: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """The folder that MONAI's bundle specification asks for; nothing else is touched.

    Raises `InputError` for a folder that is there and is no bundle.
    """
    there = {path.name for path in to.iterdir()} if to.is_dir() else set()
    begun = MODELS in there and there <= OWN  # as a stop may have left it
    if to.exists() and not (to / METADATA).is_file() and (not to.is_dir() or (there and not begun)):
        raise InputError(f"{to}: is there and is no bundle; choose another --to")
    (to / METADATA).unlink(missing_ok=True)
    write_weights(to / MODELS / WEIGHTS, weights, facts)
    with whole(to / MODELS / "model.pt") as draft:  # the specification asks for it; mixcl itself never opens it
        torch.save(dict(weights), draft)
    write_json(to / INFERENCE, inference(facts))
    write_text(to / "LICENSE", f"{facts['licence']}\n")
    write_text(to / "README.md", model_card(facts))
    write_json(to / METADATA, bundle_metadata(facts))  # last: its presence says that the rest is there


def bundle_metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """metadata.json of a bundle, as MONAI's bundle specification has it; ``mixcl`` is the whole description."""
    classes = {str(k): name for k, name in enumerate(["background", *_in_order(facts).values()])}
    shape = {"spatial_shape": facts["patch"], "dtype": "float32", "is_patch_data": True}
    image = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1, "value_range": [0, 1]}
    pred = {"type": "image", "format": "segmentation", "num_channels": len(classes), "value_range": []}
    data = ", ".join(facts["trained_on"])
    return {
        "schema": SCHEMA, "version": "0.1.0", "changelog": {"0.1.0": f"written of {facts['job']}"},
        **{f"{name}_version": metadata.version(package) for name, package in
           (("monai", "monai"), ("pytorch", "torch"), ("numpy", "numpy"))},
        "required_packages_version": {name: metadata.version(name) for name in ("einops", "nibabel", "safetensors")},
        "name": f"mixcl {_of(facts)}", "task": "segmentation of CT",
        "description": f"UNETR fine-tuned on {_of(facts)}, {facts['arm']}", "authors": "the mixcl authors",
        "copyright": facts["licence"], "data_source": f"{'phantoms of ' * facts['phantoms']}{data}",
        "data_type": "nibabel", "image_classes": "CT in HU, scaled", "label_classes": ", ".join(classes.values()),
        "eval_metrics": {"mean_dice": facts["metrics"].get("dice")} if facts["metrics"] else {},
        "intended_use": INTENDED, "references": ["https://arxiv.org/abs/2203.02114"],
        "network_data_format": {
            "inputs": {"image": {**image, **shape, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {**pred, **shape, "channel_def": classes}},
        },
        "mixcl": dict(facts),
    }  # fmt: skip


def _in_order(facts: Mapping[str, Any]) -> dict[int, str]:
    """Label values and organs in the order of the network's classes."""
    return dict(sorted((int(value), name) for value, name in facts["labels"].items()))


def inference(facts: Mapping[str, Any]) -> dict[str, Any]:
    """inference.json of a bundle: MONAI's own transforms, windows and network, and label maps on the scans' own grids.

    Grids are those of `mixcl.data.files.grid`, so that label maps are those of `mixcl.segment.predict`.
    """
    model, evaluate, classes = facts["model"], facts["settings"]["evaluate"], class_values(_in_order(facts))
    return {
        "imports": ["$import glob", "$import nibabel", "$import numpy as np", "$import torch",
                    "$from monai.data import MetaTensor"],
        "bundle_root": ".", "dataset_dir": "$@bundle_root + '/scans'", "output_dir": "$@bundle_root + '/labels'",
        "images": "$sorted(glob.glob(@dataset_dir + '/*.nii*'))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        **_grid(facts),
        "network_def": {
            "_target_": "UNETR", "in_channels": 1, "out_channels": len(classes), "img_size": facts["patch"],
            "feature_size": model["feature"], "hidden_size": model["hidden"], "mlp_dim": model["mlp"],
            "num_heads": model["heads"],
        },
        "network": "$@network_def.to(@device)",
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device, weights_only=True)",
        "preprocessing": {"_target_": "Compose", "transforms": _before(facts)},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": facts["patch"], "overlap": evaluate["overlap"],
                    "sw_batch_size": evaluate["windows"], "mode": "gaussian"},
        "postprocessing": {"_target_": "Compose", "transforms": _after(classes)},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': name} for name in @images]",
                    "transform": "@preprocessing"},
        "initialize": ["$@network.load_state_dict(@weights)", "$@network.eval()"],
        "run": ["$torch.no_grad()(lambda: [@postprocessing({**scan, 'pred': "
                "@inferer(scan['image'][None], @network)[0]})['pred'].shape for scan in @dataset])()"],
    }  # fmt: skip


def _grid(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The prepared grid of a scan, in numpy, as `mixcl.data.files.grid` lays it."""
    return {
        "spacing": facts["spacing_mm"],
        "step": "$lambda x: np.array(@spacing) / x.pixdim.numpy()",
        "size": "$lambda x: [max(round(round(n / step, 6)), 1) for n, step in zip(x.shape[1:], @step(x))]",
        "first": "$lambda x: (np.array(x.shape[1:]) - 1 - (np.array(@size(x)) - 1) * @step(x)) / 2",
        "change": "$lambda x: np.vstack([np.column_stack([np.diag(@step(x)), @first(x)]), [0, 0, 0, 1]])",
        "grid": "$lambda x: MetaTensor(torch.empty(1, *@size(x)), affine=x.affine.numpy().dot(@change(x)))",
    }


def _before(facts: Mapping[str, Any]) -> list[Any]:
    """From a file to what the network sees."""
    low, high = facts["window_hu"]
    return [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
        # the affine as it stands in the header: MONAI's reader takes another one where it holds that for wrong
        "$lambda scan: {**scan, 'image': MetaTensor(scan['image'], "
        "affine=nibabel.load(scan['image'].meta['filename_or_obj']).affine)}",
        {"_target_": "CopyItemsd", "keys": "image", "names": "original"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": facts["axes"]},
        "$lambda scan: {**scan, 'grid': @grid(scan['image'])}",
        {"_target_": "ResampleToMatchd", "keys": "image", "key_dst": "grid", **LINEAR},
        {"_target_": "Lambdad", "keys": "image", "func": "$torch.round"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": low, "a_max": high, "b_min": 0, "b_max": 1,
         "clip": True},
        {"_target_": "EnsureTyped", "keys": "image", "device": "@device"},
    ]  # fmt: skip


def _after(classes: list[int]) -> list[Any]:
    """From the network's scores to a label map on the grid of the scan."""
    return [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "ResampleToMatchd", "keys": "pred", "key_dst": "original", **LINEAR},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "MapLabelValued", "keys": "pred", "orig_labels": list(range(len(classes))),
         "target_labels": classes, "dtype": "$np.uint8"},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg",
         "output_dtype": "$np.uint8", "resample": False, "separate_folder": False},
    ]  # fmt: skip


def model_card(facts: Mapping[str, Any]) -> str:
    """README.md of a bundle, a model card in Hugging Face's form."""
    head: dict[str, Any] = {
        "license": "apache-2.0" if facts["phantoms"] else "other", "library_name": "monai",
        "pipeline_tag": "image-segmentation", "tags": ["medical", "ct", "segmentation", "unetr", "mixcl"],
    }  # fmt: skip
    if facts["metrics"]:
        kind = "synthetic" if facts["phantoms"] else facts["task"]  # a phantom's Dice is none of the collection's
        entry = {"task": {"type": "image-segmentation"}, "dataset": {"name": _of(facts), "type": kind},
                 "metrics": [{"type": "dice", "value": facts["metrics"]["dice"]}]}  # fmt: skip
        head["model-index"] = [{"name": f"mixcl-{facts['task']}", "results": [entry]}]
    organs = facts["metrics"].get("organs", {})
    rows = [
        f"| {value} | {name} | {' | '.join(str(organs.get(name, {}).get(key)) for key in ('dice', 'hd95_mm'))} |"
        for value, name in _in_order(facts).items()
    ]
    made = "phantoms, not patients: it is of no use on CT" if facts["phantoms"] else "real scans"
    cases = facts["training_cases"]
    return "\n".join([
        "---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# UNETR for {_of(facts)}", "",
        f"Trained on {made}; {len(cases)} scans of {facts['task']} ({', '.join(cases)}). {INTENDED}", "",
        "```", summary(facts), "```", "", "| value | organ | Dice | HD95, mm |", "|---|---|---|---|", *rows, "",
        f"Means over the test cases of fold {facts['fold']}, seed {facts['seed']}, measured on the "
        f"{facts['metrics']['grid']} grid (R32)." if organs else "Not evaluated.", "",
        "    mixcl predict --run . SCANS --out LABELS",
        f"    python -m monai.bundle run --config_file {INFERENCE}  # pip install fire", "",
        "MixCL: Pixel label matters to contrastive learning in medical image segmentation (Li, Quan, Zhou), "
        "https://arxiv.org/abs/2203.02114.", "",
    ])  # fmt: skip


def _of(facts: Mapping[str, Any]) -> str:
    """The task, and that its scans are made up where they are."""
    return f"{'phantoms of ' * facts['phantoms']}{facts['task']}"


def summary(facts: Mapping[str, Any]) -> str:
    """The lines of a description that are shown."""
    if "task" in facts:
        labels = ", ".join(f"{value} {name}" for value, name in facts["labels"].items())
    else:
        labels = "; ".join(f"{name}: {', '.join(organs.values())}" for name, organs in facts["labels"].items())
    dice = "-"
    if facts["metrics"]:
        grid = f"the {facts['metrics']['grid']} grid"
        dice = f"{facts['metrics']['dice']:.4f} on the test cases of fold {facts['fold']}, on {grid}"
    shown = {
        "network": f"{facts['network']}, {facts['what']}, patch {' x '.join(map(str, facts['patch']))}",
        "input": f"axes {facts['axes']}, {' x '.join(f'{mm:g}' for mm in facts['spacing_mm'])} mm, "
        f"{facts['window_hu'][0]:g} to {facts['window_hu'][1]:g} HU scaled to 0 to 1",
        "labels": labels,
        "trained on": f"{'phantoms of ' if facts['phantoms'] else ''}{', '.join(facts['trained_on'])}; "
        f"{facts['steps']} steps, profile {facts['profile']}, commit {facts['commit'][:12]}",
        "Dice": dice,
        "licence": facts["licence"],
    }
    return "\n".join(f"{key + ':':12}{value}" for key, value in shown.items())
