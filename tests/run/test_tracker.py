"""Metrics in TensorBoard, MLflow and Weights & Biases, on this machine alone; a run that is taken up goes on there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from mixcl.errors import InputError
from mixcl.run import log

CARD = {"config": {"loss": {"alpha": 0.5}}}
RECORD = {"total": 1.5, "gradients": {"label": 2.0}, "levels": [1.0], "warnings": ["text"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "out/runs/pretrain"
    run.mkdir(parents=True)
    return run


def written(folder: Path, kind: str, *steps: int) -> str:
    """Start a tracker, write records, end it; the id by which it knows the run."""
    sent_to = log.start_tracker(kind, folder, steps[0] - 1, CARD)
    metrics = log.Metrics(folder, {}, sent_to)
    for step in steps:
        metrics.write(step, RECORD)
    metrics.close()
    name: str = json.loads((folder / "tracker.json").read_text())[kind]
    return name


def package(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    return pytest.importorskip(name, reason=f"the extra {name} is not installed")


def test_tensorboard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package("tensorboard", monkeypatch)
    reading = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    written(folder, "tensorboard", 1, 2)
    written(folder, "tensorboard", 2, 3)  # taken up after step 1
    events = reading.EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("total")] == [1, 2, 3]
    assert events.Scalars("gradients.label")[0].value == 2.0
    assert set(events.Tags()["scalars"]) == {"total", "gradients.label"}


def test_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = package("mlflow", monkeypatch)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")  # is put back afterwards
    run_id = written(folder, "mlflow", 1, 2)
    assert written(folder, "mlflow", 3) == run_id
    assert mlflow.get_tracking_uri() == (folder.parents[1] / "mlruns").as_uri()
    client = mlflow.MlflowClient()
    assert [metric.step for metric in client.get_metric_history(run_id, "total")] == [1, 2, 3]
    data = client.get_run(run_id).data
    assert (data.metrics["gradients.label"], data.params["loss.alpha"]) == (2.0, "0.5")
    assert data.tags["mlflow.runName"] == "pretrain"
    assert written(folder, "mlflow", 1) != run_id  # begun again


def test_wandb_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package("wandb", monkeypatch)
    monkeypatch.setenv("WANDB_SILENT", "true")
    name = written(folder, "wandb", 1, 2)
    assert written(folder, "wandb", 3) == name
    kept = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert kept
    assert {path.stem for path in kept} == {f"run-{name}"}
    assert all(path.stat().st_size for path in kept)


def test_none_is_none(folder: Path) -> None:
    assert log.start_tracker(None, folder, 0, CARD) is None
    assert not list(folder.iterdir())


def test_what_is_not_installed_is_told_with_the_mend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run\.tracker is mlflow, .* pip install -e '.\[mlflow\]'"):
        log.start_tracker("mlflow", folder, 0, CARD)
