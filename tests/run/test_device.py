"""What the settings ``run`` mean on the machine at hand."""

import pytest
import torch
from torch import Tensor, nn

from mixcl.config import load_profile
from mixcl.config.settings import ModelConfig, RunConfig
from mixcl.model import seeded, segmentation_model
from mixcl.run import device
from mixcl.run.device import FAST_PLANE, forward

SMALL = ModelConfig(patch=32, feature=4, hidden=24, mlp=48, heads=2)


class Counted(nn.Module):
    """Hands on what it is given, and keeps how many samples came."""

    samples = 0

    def forward(self, images: Tensor) -> Tensor:
        self.samples = len(images)
        return images * 2


def test_a_lone_sample_gives_what_it_gave_and_the_same_gradients() -> None:
    with seeded(0):
        net = segmentation_model(SMALL, 3).double()
    images = torch.rand(1, 1, 32, 32, 32, dtype=torch.float64)
    gradients, outputs = [], []
    for run in (net, lambda x: forward(net, x, SMALL)):
        net.zero_grad()
        output = run(images)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        outputs.append(output)
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_the_paper_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU it computes in float32 and has no worker processes, whatever it has with one."""
    run = load_profile("paper").run
    for gpu, expected in ((False, ("no", 0)), (True, ("bf16", device.MOST_WORKERS))):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        monkeypatch.setattr(device, "cores", lambda: 16)
        assert (device.precision(run), device.workers(run)) == expected
        assert not run.compile


def test_a_training_that_takes_days_on_a_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """19 s a sample and 6 of them a step, as measured, for the paper's 128,000 steps."""
    text = device.slow(RunConfig(device="cpu"), 114.0, 127_999)
    assert text.startswith("a step takes 114 s on this processor, the 127,999 left about 169 days")
    assert device.slow(RunConfig(device="cpu"), 0.1, 1000) == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.slow(RunConfig(device="cuda"), 114.0, 127_999) == ""


@pytest.mark.parametrize(
    ("precision", "instructions", "warned"),
    [("bf16", "AVX2", True), ("bf16", "AVX512", False), ("no", "AVX2", False), ("auto", "AVX2", False)],
)
def test_bf16_without_its_instructions_is_said_to_be_slow(
    precision: str, instructions: str, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is computed: a training, an evaluation and `mixcl predict` alike."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    with device.machine(RunConfig.model_validate({"precision": precision, "device": "cpu"})):
        assert ("many times as long" in capsys.readouterr().err) is warned


@pytest.mark.parametrize(
    ("batch", "feature", "autocast", "run"),
    [(1, 4, False, 2), (2, 4, False, 2), (3, 4, False, 3), (1, 32, False, 1), (1, 4, True, 1)],
)
def test_only_a_lone_sample_of_a_narrow_network_in_float32_is_doubled(
    batch: int, feature: int, autocast: bool, run: int
) -> None:
    net, model = Counted(), ModelConfig(patch=32, feature=feature)
    assert (feature * 32**2 > FAST_PLANE) == (feature == 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert forward(net, torch.ones(batch, 1, 2, 2, 2), model).shape == (batch, 1, 2, 2, 2)
    assert net.samples == run
