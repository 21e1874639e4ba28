"""A trained network as others carry it away: in one file or as a MONAI bundle, with all that is needed to use it.

All that is said of a network is one description, `about`, everywhere here ``facts``: in the metadata of a weights file
under ``mixcl``, and in a bundle, which is a folder::

    configs/metadata.json      as MONAI's bundle specification has it; written last
    configs/inference.json     python -m monai.bundle run --config_file configs/inference.json
    models/model.safetensors   weights, with the description; what mixcl reads
    models/model.pt            the same for MONAI's tools, which ask for it
    README.md, LICENSE         a model card in Hugging Face's form; what is known of the licence
"""

import math
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from mixcl.config.settings import Experiment
from mixcl.data.registry import collections
from mixcl.errors import InputError
from mixcl.files import whole, write_json, write_text
from mixcl.handover import unetr_weights
from mixcl.model import TRANSFER, segmentation_model, select
from mixcl.run.checkpoint import read_weights, weights_id, write_weights
from mixcl.run.folders import settings_of
from mixcl.run.record import WEIGHTS, deciding, flat, read_card
from mixcl.spreadsheet import read_csv

SEGMENTATION, METRICS = "segmentation", ("dice", "hd95_mm")
MODELS, METADATA, INFERENCE = "models", "configs/metadata.json", "configs/inference.json"
OWN = {"models", "configs", "LICENSE", "README.md"}


class Carried(NamedTuple):
    """A network that labels scans, and what it needs: settings, label values with their names, what is said of it."""

    net: nn.Module
    config: Experiment
    names: dict[int, str]
    about: dict[str, Any]


def about(run: Path, config: Experiment | None = None) -> dict[str, Any]:
    """All that someone who did not train it needs to know of the network of a finished run.

    ``config`` is, where it is given, what to say of its settings: those of the run but for what decided no weight, such
    as ``evaluate``.  Lengths are mm, intensities HU; ``labels`` are label value -> organ, for a pre-training by
    collection.  Raises `InputError` where the run is not finished or damaged, or its weights have other settings.
    """
    card, made = read_card(run), settings_of(run)
    config = config or made
    stages = ("prepare", "pretrain", *(["finetune"] if card.get("task") else []))
    was, now = (flat({name: part for s in stages for name, part in deciding(c, s).items()}) for c in (made, config))
    if card.get("task"):  # its folds decided which scans it was trained on
        was["grid.n_folds"], now["grid.n_folds"] = made.grid.n_folds, config.grid.n_folds
    if other := next((key for key in now | was if was.get(key) != now.get(key)), None):
        text = f"was trained with {other} = {was.get(other)!r}, not {now.get(other)!r}"
        raise InputError(f"{run}: {text}; leave that out, or train it anew")
    _, description = read_weights(run)
    if description["id"] != card.get("weights"):
        raise InputError(f"{run / WEIGHTS}: not the weights of run.json; train the run again with --restart")
    try:
        return _facts(card, config, description) | {"metrics": _metrics(run)}
    except KeyError as error:
        raise InputError(f"{run / 'run.json'}: has no {error.args[0]}; take {run} away, or train it again") from None


def _facts(card: Mapping[str, Any], config: Experiment, description: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`about` gives of a run.json, its settings and the description of its weights."""
    sets, task = collections(config.data), card.get("task")
    names = config.data.pretrain
    organs = {name: {str(value): organ for value, organ in sets[name].organs.items()} for name in names}
    roles = dict.fromkeys(() if task and card["decides"]["init"] == "none" else names, "pre-training")
    roles |= {task: "fine-tuning"} if task else {}
    before = {name: {"for": role, "licence": sets[name].licence} for name, role in roles.items()}
    trained_on = description.get("trained_on", before)  # weights of an older version do not say it
    phantoms = description.get("phantoms", config.data.source == "phantom")
    facts = {
        "what": SEGMENTATION if task else "pre-training", "network": "monai.networks.nets.UNETR",
        "id": description["id"], "axes": "RAS", "spacing_mm": list(config.data.spacing),
        "window_hu": list(config.data.hu), "scaled_to": [0, 1], "patch": [config.model.patch] * 3,
        "labels": card["labels"] if task else organs,
        "trained_on": trained_on, "scans": description.get("scans", ""),
        "training_cases": card["train"] if task else card["cases"],
        "phantoms": phantoms, "licence": _licence(phantoms, [of["licence"] for of in trained_on.values()]),
        **{key: card[key] for key in ("job", "steps", "profile", "commit", "data", "seed")},
        "model": config.model.model_dump(mode="json"),
        "settings": config.model_dump(mode="json", exclude={"run": True, "data": {"root", "store"}}),
    }  # fmt: skip
    return facts | {key: card[key] for key in ("task", "percent", "arm", "fold") if key in card}


def _licence(phantoms: bool, licences: list[str]) -> str:
    if phantoms:
        return "Apache-2.0, as the code: the phantoms it was trained on were made by it"
    under = "; ".join(dict.fromkeys(licence or "terms that its collection does not tell" for licence in licences))
    return f"the code: Apache-2.0; the scans it was trained on: {under}; what these say of weights is yours to settle"


def _metrics(run: Path) -> dict[str, Any]:
    """Mean Dice and HD95, mm, over the test cases of a fold, of all organs and of each; {} before the evaluation."""
    if not (run / "cases.csv").is_file():
        return {}
    try:
        cases = read_csv(run / "cases.csv", ("case", "organ", "task", "arm", "profile", "data", "grid"))
        organs = {
            organ: {name: None if math.isnan(mean) else round(float(mean), 4) for name, mean in part.items()}
            for organ, part in cases.groupby("organ", sort=False)[[*METRICS]].mean().iterrows()
        }
        dice = round(float(cases.groupby("case")["dice"].mean().mean()), 4)
        return {"dice": dice, "organs": organs, "grid": " and ".join(sorted(cases["grid"].unique()))}
    except (OSError, ValueError, KeyError, TypeError):
        text = f"not what mixcl evaluate writes; run mixcl evaluate --run {run.name} again"
        raise InputError(f"{run / 'cases.csv'}: {text}") from None


def export(run: Path, to: Path, transfer: str | None = None, config: Experiment | None = None) -> str:
    """Write a finished run for others: one weights file, or a MONAI bundle of a fine-tuned network.

    ``run`` is the folder of the run.  ``to`` is a .safetensors file; a path without an ending is the folder of a
    bundle, a new one or one that was one.  ``transfer`` is, of a pre-training, what goes to the file (R16): encoder,
    vit or all; None is what ``finetune.transfer`` says.  ``config`` is as of `about`.

    What comes back is Python: what was written, as comments, and the lines that load it.  InputError where the run is
    not finished, or ``to`` is neither kind, lies in a run's folder, or is there and no bundle.
    """
    if transfer not in (None, *TRANSFER):
        raise InputError(f"--transfer {transfer!r}: choose one of {', '.join(TRANSFER)}")
    if to.suffix not in ("", ".safetensors"):
        raise InputError(f"{to}: name the file .safetensors, or give the folder of a bundle, without an ending")
    if any((place / "run.json").is_file() for place in (to, to.absolute().parent)):
        raise InputError(f"{to}: lies in the folder of a run, whose own files it could replace; write it elsewhere")
    weights, description = read_weights(run)
    if not description.get("model"):
        raise InputError(f"{run}: not a run of mixcl; give the folder of one")
    facts = about(run, config)
    transfer = transfer or str(facts["settings"]["finetune"]["transfer"])
    comments = "\n".join(f"# {line}" for line in _text("summary", facts).splitlines())
    if to.suffix:
        return f"{comments}\n{_write_weights(to, weights, facts, transfer)}"
    if facts["what"] != SEGMENTATION:
        raise InputError(f"{run}: a pre-training labels nothing, so it makes no bundle; give --to a .safetensors file")
    _write_bundle(to, weights, facts)
    words = ["python", "-m", "monai.bundle", "run", "--config_file", str(to / INFERENCE), "--bundle_root", str(to)]
    return f"{comments}\n# a bundle: {to}\n# {shlex.join(words)}"


def _write_weights(to: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any], transfer: str) -> str:
    complete = facts["what"] == SEGMENTATION
    chosen = dict(weights) if complete else select(unetr_weights(weights), transfer)
    more = {} if complete else {"transfer": transfer}
    write_weights(to, chosen, {**facts, **more, "of": facts["id"], "id": weights_id(chosen)})
    model, classes = facts["model"], len(facts["labels"]) + 1 if complete else "YOUR_CLASSES"
    return (
        "from monai.networks.nets import UNETR\n"
        "from safetensors.torch import load_file\n"
        f"net = UNETR(in_channels=1, out_channels={classes}, img_size=({model['patch']},) * 3, "
        f"feature_size={model['feature']}, hidden_size={model['hidden']}, mlp_dim={model['mlp']}, "
        f"num_heads={model['heads']})\n"
        f"net.load_state_dict(load_file({str(to)!r}), strict={complete})"
    )


def read_carried(path: Path) -> Carried:
    """A network that labels scans: of a fine-tuning run's folder, a weights file of `export`, or a bundle's folder.

    InputError where it is none of these, not whole, of another version, or a pre-training, which labels nothing.
    """
    if (path / "run.json").is_file():
        weights, facts = read_weights(path)[0], about(path)
    else:
        bundle = (path / METADATA).is_file()
        weights, facts = read_weights(path / MODELS / WEIGHTS if bundle else path)
    if facts.get("what") != SEGMENTATION:
        raise InputError(f"{path}: labels nothing; give a fine-tuning run, or what mixcl export wrote of one")
    try:
        config = Experiment.model_validate(facts["settings"])
        names = {int(value): str(name) for value, name in facts["labels"].items()}
        net = segmentation_model(config.model, len(names))
        net.load_state_dict(dict(weights))
    except (ValidationError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: its description does not fit this version ({first}); export it again") from None
    return Carried(net, config, dict(sorted(names.items())), facts)


def _write_bundle(to: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
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
    write_json(to / INFERENCE, _inference(facts))
    write_text(to / "LICENSE", f"{facts['licence']}\n")
    write_text(to / "README.md", _text("card", facts) + "\n")
    write_json(to / METADATA, _metadata(facts))  # last: its presence says that the rest is there


def _template(name: str) -> Any:
    """A part of export.yaml beside this file."""
    return yaml.safe_load(Path(__file__).with_name("export.yaml").read_text(encoding="utf-8"))[name]


def _text(name: str, facts: Mapping[str, Any]) -> str:
    """The ``summary`` of a description, the lines that are shown, or the model ``card`` of a bundle."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    more: dict[str, Any] = {}
    if name == "card":
        more = {"summary": _text("summary", facts), "classes": _classes(facts)}
        more["intended_use"] = _template("metadata")["intended_use"]
    return environment.from_string(_template(name)).render({**facts, **more})


def _classes(facts: Mapping[str, Any]) -> dict[int, str]:
    """Label value -> name of the network's classes, in their order."""
    return {0: "background"} | dict(sorted((int(value), name) for value, name in facts["labels"].items()))


def _metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """metadata.json; ``mixcl`` is the whole description."""
    template, names = _template("metadata"), list(_classes(facts).values())
    formats, patch = template["network_data_format"], {"spatial_shape": facts["patch"]}
    formats["inputs"]["image"] |= patch
    classes = {str(k): name for k, name in enumerate(names)}
    formats["outputs"]["pred"] |= {**patch, "num_channels": len(classes), "channel_def": classes}
    made_up = "phantoms of " * facts["phantoms"]
    task = f"{made_up}{facts['task']}"
    return {
        **template, "changelog": {template["version"]: f"written of {facts['job']}"},
        "monai_version": version("monai"), "pytorch_version": version("torch"), "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in ("einops", "nibabel", "safetensors")},
        "name": f"mixcl {task}", "description": f"UNETR fine-tuned on {task}, {facts['arm']}",
        "copyright": facts["licence"], "data_source": f"{made_up}{', '.join(facts['trained_on'])}",
        "label_classes": ", ".join(names),
        "eval_metrics": {"mean_dice": facts["metrics"].get("dice")} if facts["metrics"] else {}, "mixcl": dict(facts),
    }  # fmt: skip


def _inference(facts: Mapping[str, Any]) -> dict[str, Any]:
    """inference.json; what begins with ``%`` in its template is a macro of MONAI's."""
    from monai.bundle import ConfigParser

    classes = list(_classes(facts))
    values = {key: facts[key] for key in ("axes", "model", "patch", "spacing_mm", "window_hu")}
    values |= {"classes": classes, "channels": len(classes), "indices": list(range(len(classes)))}
    values["evaluate"] = facts["settings"]["evaluate"]
    parser = ConfigParser({"inference": _template("inference"), "values": values})
    parser.resolve_macro_and_relative_ids()
    filled: dict[str, Any] = parser["inference"]
    return filled
