"""The walk-through's network at three moments of its pre-training: as it is shipped, or trained now."""

from pathlib import Path
from typing import Any

import torch

from mixcl import trainer
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.data.prepare.run import prepare
from mixcl.errors import InputError
from mixcl.files import write_text
from mixcl.model import MixCL, seeded
from mixcl.run import checkpoint, record

WEIGHTS = Path(__file__).parent / "weights"
PROFILE, EARLY = "walkthrough-train", 6  # of the shipped weights; a training is early after one of so many steps
SETTINGS = ("model", "loss", "sampler", "views")  # sections that shipped weights are for
MAKE = "bash reproduce/walkthrough.sh --train"
MOMENTS = ("start", "early", "late")
BEFORE = "before training"
CARD = """# Weights of the walk-through

The network of notebooks 00, 01, 02 and 04 at three moments of its pre-training, float16. Made by

    {make}

| file | steps | what it is |
|---|---|---|
| start.safetensors | 0 | the weights that training starts from |
| early.safetensors | {early} | a training of {early} steps |
| late.safetensors | {late} | a training of {late} steps |

- **Profile** `{profile}`, seed {seed}, commit {commit}.
- **Data**: {scans} phantoms, not patients, of `{collections}` (`phantom.seed` {phantoms}, data {data}).
  The notebooks show phantoms of another seed, which the network has never seen.
- **Settings**: the paper's, but for a narrow network, a batch of 1, a learning rate of {lr:g} that falls to 0 over the
  steps of each training, alpha = {alpha:g} (the paper has 0.01, with which labels hardly pull, R26), and Eq. 6 with a
  logarithm for each positive pair (`{reduction}`, R8).
- **Licence**: that of this repository. They are for looking at; an encoder for use comes from `mixcl pretrain`.
"""


def untrained(config: Experiment) -> MixCL:
    """The network with the weights that pre-training starts from."""
    with seeded(config.pretrain.seed):
        return MixCL(config)


def stages(config: Experiment, out: Path, steps: int = 0, progress: bool = False) -> dict[str, MixCL]:
    """The network before, early in and after its pre-training, by what to call that.

    ``steps`` > 0 trains now, as OUT/runs/walkthrough and, for one in `EARLY` steps, OUT/runs/walkthrough-early.
    0 trains nothing: the profile's own pre-training, OUT/runs/pretrain, is taken where it is finished and fits
    ``config.model``, then without an early moment; else the shipped weights (`WEIGHTS`).

    Raises `InputError` where shipped weights are asked for, and are missing or of other settings or data.
    """
    if steps:
        quick = {"epochs": None, "log_every": 1, "gradients_every": 0, "probe_every": 0}
        models = {BEFORE: untrained(config)}
        for job, n in {"walkthrough-early": max(steps // EARLY, 1), "walkthrough": steps}.items():
            pretrain = config.pretrain.model_copy(update={"steps": n, **quick})
            short = config.model_copy(update={"pretrain": pretrain})
            run = trainer.pretrain(short, out, job=job, restart="changed", progress=progress)
            models[f"after {n} steps"] = _network(config, checkpoint.read_weights(run)[0])
        return models
    own = out / "runs" / "pretrain"
    if (own / checkpoint.WEIGHTS).is_file():
        weights, card = checkpoint.read_weights(own)
        if card.get("model") == config.model.model_dump(mode="json"):
            done = f"after {record.read_card(own)['steps']} steps"
            return {BEFORE: untrained(config), done: _network(config, weights)}
    return _shipped(config)


def make(out: Path) -> None:
    """Train the shipped weights in ``out`` and write them, with their card, to `WEIGHTS`."""
    config = load_profile(PROFILE)
    prepare(config, out, progress=False)
    late = config.pretrain.total_steps(0)
    networks = stages(config, out, late, progress=True)
    card = record.read_card(out / "runs" / "walkthrough")
    about = {key: card[key] for key in ("profile", "seed", "commit", "data")}
    about |= {"scans": card["cases"], "data_are": "phantoms", "settings": _settings(config)}
    for name, steps, (title, model) in zip(MOMENTS, (0, late // EARLY, late), networks.items(), strict=True):
        halves = {key: value.to(torch.float16) for key, value in model.state_dict().items()}
        own = {"steps": steps, "title": title, "id": checkpoint.weights_id(halves)}
        checkpoint.write_weights(WEIGHTS / f"{name}.safetensors", halves, about | own)
    text = CARD.format(
        make=MAKE, early=late // EARLY, late=late, collections=", ".join(config.data.pretrain),
        phantoms=config.data.phantom.seed, lr=config.pretrain.lr, alpha=config.loss.alpha,
        reduction=config.loss.label_reduction, **about,
    )  # fmt: skip
    write_text(WEIGHTS / "README.md", text)


def _shipped(config: Experiment) -> dict[str, MixCL]:
    """The shipped weights, if they are for these settings."""
    if missing := [name for name in MOMENTS if not (WEIGHTS / f"{name}.safetensors").is_file()]:
        text = f"{WEIGHTS / missing[0]}.safetensors: the shipped weights are missing"
        raise InputError(f"{text}; set STEPS to train some now, or make them with {MAKE}")
    shipped = [checkpoint.read_weights(WEIGHTS / f"{name}.safetensors") for name in MOMENTS]
    wanted, settings = _settings(config), shipped[-1][1]["settings"]  # a later setting is at its default
    differing = [f"{s}.{key}" for s, values in settings.items() for key in values if wanted[s].get(key) != values[key]]
    if config.data.source != "phantom":
        differing.append("data.source")
    if differing:
        text = f"the shipped weights are of another {', '.join(differing)}"
        raise InputError(f"{text}; set STEPS, such as 200, to train now")
    return {about["title"]: _network(config, weights) for weights, about in shipped}


def _settings(config: Experiment) -> dict[str, Any]:
    return {section: getattr(config, section).model_dump(mode="json") for section in SETTINGS}


def _network(config: Experiment, weights: dict[str, torch.Tensor]) -> MixCL:
    model = MixCL(config)
    model.load_state_dict(weights)
    return model
