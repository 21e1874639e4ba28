"""A trained network as others carry it away: its weights in one file, with all that is needed to use them.

All that is said of a network is one description, `about`: in the metadata of a weights file under ``mixcl``, and in a
MONAI bundle (:mod:`mixcl.bundle`).
"""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from torch import Tensor, nn

from mixcl.bundle import INFERENCE, METADATA, MODELS, summary, write_bundle
from mixcl.config.settings import Experiment
from mixcl.data.registry import collections
from mixcl.errors import InputError
from mixcl.handover import unetr_weights
from mixcl.model import TRANSFER, segmentation_model, select
from mixcl.run.checkpoint import read_weights, weights_id, write_weights
from mixcl.run.find import settings_of
from mixcl.run.record import WEIGHTS, read_card
from mixcl.spreadsheet import read_csv

SEGMENTATION, METRICS = "segmentation", ("dice", "hd95_mm")


class Carried(NamedTuple):
    """A network that labels scans, and what it needs: settings, label values with their names, what is said of it."""

    net: nn.Module
    config: Experiment
    names: dict[int, str]
    about: dict[str, Any]


def about(run: Path) -> dict[str, Any]:
    """All that someone who did not train it needs to know of the network of a finished run.

    Lengths are mm, intensities HU; ``labels`` are label value -> organ, for a pre-training by collection.  Raises
    `InputError` where the run is not finished or damaged.
    """
    card, config = read_card(run), settings_of(run)
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


def export(run: Path, to: Path, transfer: str = "encoder") -> str:
    """Write a finished run for others: one weights file, or a MONAI bundle of a fine-tuned network.

    ``run`` is the folder of the run.  ``to`` is a .safetensors file; a path without an ending is the folder of a
    bundle, a new one or one that was one.  ``transfer`` is, of a pre-training, what goes to the file (R16): encoder,
    vit or all.

    What comes back is Python: what was written, as comments, and the lines that load it.  InputError where the run is
    not finished, or ``to`` is neither kind, lies in a run's folder, or is there and no bundle.
    """
    if transfer not in TRANSFER:
        raise InputError(f"--transfer {transfer!r}: choose one of {', '.join(TRANSFER)}")
    if to.suffix not in ("", ".safetensors"):
        raise InputError(f"{to}: name the file .safetensors, or give the folder of a bundle, without an ending")
    if any((place / "run.json").is_file() for place in (to, to.absolute().parent)):
        raise InputError(f"{to}: lies in the folder of a run, whose own files it could replace; write it elsewhere")
    weights, description = read_weights(run)
    if not description.get("model"):
        raise InputError(f"{run}: not a run of mixcl; give the folder of one")
    facts = about(run)
    told = "\n".join(f"# {line}" for line in summary(facts).splitlines())
    if to.suffix:
        return f"{told}\n{_write_weights(to, weights, facts, transfer)}"
    if facts["what"] != SEGMENTATION:
        raise InputError(f"{run}: a pre-training labels nothing, so it makes no bundle; give --to a .safetensors file")
    write_bundle(to, weights, facts)
    words = ["python", "-m", "monai.bundle", "run", "--config_file", str(to / INFERENCE), "--bundle_root", str(to)]
    how = shlex.join(words)
    return f"{told}\n# a bundle: {to}\n# {how}"


def _write_weights(to: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any], transfer: str) -> str:
    whole = facts["what"] == SEGMENTATION
    chosen = dict(weights) if whole else select(unetr_weights(weights), transfer)
    more = {} if whole else {"transfer": transfer}
    write_weights(to, chosen, {**facts, **more, "of": facts["id"], "id": weights_id(chosen)})
    model, classes = facts["model"], len(facts["labels"]) + 1 if whole else "YOUR_CLASSES"
    return (
        "from monai.networks.nets import UNETR\n"
        "from safetensors.torch import load_file\n"
        f"net = UNETR(in_channels=1, out_channels={classes}, img_size=({model['patch']},) * 3, "
        f"feature_size={model['feature']}, hidden_size={model['hidden']}, mlp_dim={model['mlp']}, "
        f"num_heads={model['heads']})\n"
        f"net.load_state_dict(load_file({str(to)!r}), strict={whole})"
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
