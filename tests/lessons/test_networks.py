"""The weights that the walk-through comes with: what they are, when they are taken, and that they show something."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mixcl import augment, losses, trainer
from mixcl.batches import generator
from mixcl.config import load_profile, with_settings
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.lessons import networks, restore, scene
from mixcl.model import LABEL_LEVEL
from mixcl.run import record

FILES = [networks.WEIGHTS / f"{name}.safetensors" for name in networks.MOMENTS]
LARGEST = 2_000_000  # bytes of all of them


def about(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, object] = json.loads(file.metadata()["mixcl"])
    return metadata


def test_they_are_small_and_say_how_they_were_made() -> None:
    assert sum(path.stat().st_size for path in FILES) <= LARGEST
    card = (networks.WEIGHTS / "README.md").read_text()
    for path in FILES:
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        metadata = about(path)
        assert metadata["profile"] == networks.PROFILE
        assert metadata["data_are"] == "phantoms"
        assert re.fullmatch("[0-9a-f]{40}", str(metadata["commit"]))
        for key in ("profile", "seed", "commit", "steps", "scans", "data"):
            assert str(metadata[key]) in card
    assert [about(path)["steps"] for path in FILES] == [0, 100, 600]
    assert networks.MAKE in card


def test_they_are_those_of_the_profile(tmp_path: Path) -> None:
    config = load_profile(networks.PROFILE)
    networks.stages(config, tmp_path)  # would be refused
    assert about(FILES[-1])["steps"] == config.pretrain.steps
    shown = load_profile("walkthrough")
    assert config.data.phantom.seed != shown.data.phantom.seed  # no scan that is shown was trained on
    assert networks._settings(shown) == networks._settings(config)


def test_they_show_what_training_does(tmp_path: Path) -> None:
    """Pairs come apart and the restored patch is nearer to the patch than its view, on a scan never seen."""
    counts = {"msd_liver": 2, "msd_spleen": 1}
    config = load_profile("walkthrough", ["data.pretrain=[msd_liver]", "data.finetune=[msd_spleen]"])
    phantom = config.data.phantom.model_copy(update={"counts": counts})
    config = config.model_copy(update={"data": config.data.model_copy(update={"phantom": phantom})})
    pair = scene.choose(config, scene.ready(config, tmp_path))
    batch = scene.batch(config, pair.raw, spatial_prob=0.0)
    patch = pair.raw["image"][:1]
    view = augment.views(patch, restore.stronger(config.views, 1), generator(0))
    (pixels_1, pixels_2), (labels_1, labels_2) = batch.pixels[0], batch.labels[0]
    relation, gaps, errors = losses.label_relation(labels_1, labels_2), [], []
    for model in networks.stages(config, tmp_path).values():
        with torch.no_grad():
            level = model(batch.views).levels[LABEL_LEVEL].flatten(2)
            restored = model(view).restored
        unit = torch.nn.functional.normalize(level, dim=1)
        cosines = unit[0, :, pixels_1].T @ unit[2, :, pixels_2]
        gaps.append(float(cosines[relation == 1].mean() - cosines[relation == 0].mean()))
        errors.append(float((restored - patch).square().mean().sqrt()))
    assert gaps[0] < 0.03
    assert gaps[2] > gaps[1] > gaps[0]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < float((view - patch).square().mean().sqrt())


@pytest.mark.parametrize("change", ["model.hidden=48", "loss.alpha=0.01", "views.intensity_prob=0.8"])
def test_other_settings_need_a_training_of_their_own(change: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{change.partition('=')[0]}; set STEPS"):
        networks.stages(load_profile("walkthrough", [change]), tmp_path)


def test_patients_need_a_training_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.source"):
        networks.stages(load_profile("walkthrough", ["data.source=files"]), tmp_path)


def test_missing_weights_are_told_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match=r"start\.safetensors.*missing.*STEPS.*walkthrough\.sh --train"):
        networks.stages(load_profile("walkthrough"), tmp_path)


def test_steps_train_now_and_a_training_of_the_profile_is_preferred_to_what_is_shipped(
    smoke: Experiment, tmp_path: Path
) -> None:
    by_epochs = with_settings(smoke, ["pretrain.epochs=1", "pretrain.batch=4"])
    trained = networks.stages(by_epochs, tmp_path, 2)
    assert list(trained) == ["before training", "after 1 steps", "after 2 steps"]
    assert record.read_card(tmp_path / "runs" / "walkthrough")["steps"] == 2
    before, early, late = (next(iter(model.parameters())) for model in trained.values())
    assert not torch.equal(before, early)
    assert not torch.equal(early, late)
    trainer.pretrain(by_epochs, tmp_path, progress=False)
    assert list(networks.stages(by_epochs, tmp_path)) == ["before training", "after 3 steps"]
