"""What the settings ``run`` mean on the machine at hand."""

import pytest
import torch
from torch import Tensor, nn

from mixcl.config.settings import ModelConfig
from mixcl.model import seeded, segmentation_model
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
