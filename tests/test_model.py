"""The network: the same function as MONAI's UNETR, levels as R1 reads them, and a hand-over that cannot fool anyone."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNETR
from torch import nn

from mixcl.config.settings import ModelConfig
from mixcl.errors import InputError
from mixcl.handover import hand_over
from mixcl.model import Backbone, MixCL, level_channels, level_edges, seeded, segmentation_model

SMALL = ModelConfig(patch=32, feature=4, hidden=24, mlp=48, heads=2)
STOCK = {"in_channels": 1, "img_size": (32,) * 3, "feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2}


@pytest.fixture(scope="module")
def net() -> MixCL:
    with seeded(0):
        return MixCL(SMALL)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))


def test_restored_is_what_a_stock_unetr_gives(net: MixCL, x: torch.Tensor) -> None:
    stock = UNETR(out_channels=1, **STOCK)
    stock.load_state_dict(net.backbone.state_dict())
    with torch.no_grad():
        assert torch.equal(net(x).restored, stock(x))


def test_levels_are_the_outputs_of_unetrs_own_modules(net: MixCL, x: torch.Tensor) -> None:
    """Hooks on a stock UNETR see the maps that are projected: encoder1..4 and the normalised ViT output."""
    stock = UNETR(out_channels=1, **STOCK)
    stock.load_state_dict(net.backbone.state_dict())
    seen: dict[str, torch.Tensor] = {}
    for name in ("encoder1", "encoder2", "encoder3", "encoder4", "vit"):
        getattr(stock, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        stock(x)
        maps = net.level_maps(net.backbone.encode(x))
    for index in range(4):
        assert torch.equal(maps[index], seen[f"encoder{index + 1}"])
    tokens = seen["vit"][0].transpose(1, 2).reshape(2, 24, 2, 2, 2)
    assert torch.equal(maps[4], tokens)


@pytest.mark.parametrize("levels", ["skip", "tokens"])
@pytest.mark.parametrize("width", [None, 10])
def test_shapes_of_both_readings_of_levels(levels: str, width: int | None, x: torch.Tensor) -> None:
    config = SMALL.model_copy(update={"levels": levels, "projector_width": width})
    output = MixCL(config)(x[:1])
    assert output.restored.shape == (1, 1, 32, 32, 32)
    expected = [(1, width or 2 * c, e, e, e) for c, e in zip(level_channels(config), level_edges(config), strict=True)]
    assert [tuple(level.shape) for level in output.levels] == expected


def test_levels_of_the_papers_size() -> None:
    config = ModelConfig()
    assert level_channels(config) == (16, 32, 64, 128, 768)
    assert level_edges(config) == (96, 48, 24, 12, 6)
    assert level_edges(config.model_copy(update={"levels": "tokens"})) == (6, 6, 6, 6)


def test_tokens_are_the_taps_of_unetr(x: torch.Tensor) -> None:
    config = SMALL.model_copy(update={"levels": "tokens"})
    net = MixCL(config)
    with torch.no_grad():
        last, hidden = net.backbone.vit(x)
        maps = net.level_maps(net.backbone.encode(x))
    for got, tap in zip(maps, (hidden[3], hidden[6], hidden[9], last), strict=True):
        assert torch.equal(got, tap.transpose(1, 2).reshape(2, 24, 2, 2, 2))


def test_projector_is_three_pointwise_convolutions(net: MixCL) -> None:
    """Channels [c, c, 2c], 1x1x1, with normalisation and activation between them (Sec. 2.1)."""
    for c, projector in zip(level_channels(SMALL), net.projectors, strict=True):
        convolutions = [m for m in projector.modules() if isinstance(m, nn.Conv3d)]
        assert [(m.in_channels, m.out_channels) for m in convolutions] == [(c, c), (c, c), (c, 2 * c)]
        assert all(m.kernel_size == (1, 1, 1) for m in convolutions)
        kinds = [type(m) for m in projector.trunk]
        assert kinds == [nn.Conv3d, nn.InstanceNorm3d, nn.LeakyReLU] * 2


def test_some_pixels_alone_equal_the_whole_map(net: MixCL) -> None:
    projector = net.projectors[1]
    z = torch.randn(1, 8, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    indices = torch.tensor([0, 5, 4095, 77])
    picked = projector.pixels(projector.trunk(z)[0], indices)
    torch.testing.assert_close(picked, projector(z)[0].flatten(1)[:, indices].T)


def test_encoder_loads_into_a_stock_unetr(net: MixCL) -> None:
    state = net.encoder_state_dict()
    stock = UNETR(out_channels=14, **STOCK)
    report = stock.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert {name.split(".")[0] for name in report.missing_keys} == {f"decoder{i}" for i in (2, 3, 4, 5)} | {"out"}
    assert all(torch.equal(stock.state_dict()[name], value) for name, value in state.items())
    assert {name.split(".")[0] for name in state} == {"vit", "encoder1", "encoder2", "encoder3", "encoder4"}


@pytest.mark.parametrize(
    ("transfer", "parts"), [("vit", ("vit",)), ("encoder", ("vit", "enc")), ("all", ("vit", "enc", "dec"))]
)
def test_hand_over_moves_what_it_says_and_nothing_else(net: MixCL, transfer: str, parts: tuple[str, ...]) -> None:
    target = segmentation_model(SMALL, 3)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    report = hand_over(net.backbone.state_dict(), target, transfer=transfer)  # type: ignore[arg-type]
    for name, value in target.state_dict().items():
        source = net.backbone.state_dict()[name] if name.startswith(parts) else before[name]
        assert torch.equal(value, source), name
    assert set(report.loaded) == {name for name in before if name.startswith(parts)}
    assert set(report.loaded) | set(report.fresh) == set(before)
    assert str(len(report.loaded)) in str(report)


def test_hand_over_refuses_too_little(net: MixCL) -> None:
    target, state = segmentation_model(SMALL, 3), net.encoder_state_dict()
    with pytest.raises(InputError, match="missing"):
        hand_over({f"module.{name}": value for name, value in state.items()}, target)
    partial = dict(list(state.items())[:-1])
    with pytest.raises(InputError, match=r"1 of the .* weights .* missing"):
        hand_over(partial, target)
    with pytest.raises(
        InputError, match=r"1 weights .* have no place in this network, first vit\.blocks\.0\.attn\.qkv\.bias"
    ):
        hand_over({**state, "vit.blocks.0.attn.qkv.bias": torch.zeros(72)}, target)
    wide = segmentation_model(SMALL.model_copy(update={"hidden": 48}), 3)
    with pytest.raises(InputError, match=r"another shape.*\(24,\).*\(48,\)|another shape"):
        hand_over(state, wide, source="here.safetensors")


def test_every_trainable_weight_gets_a_gradient(net: MixCL, x: torch.Tensor) -> None:
    """MONAI's unused cross-attention norms are frozen, so that data-parallel training does not wait for them."""
    output = net(x)
    (output.restored.square().mean() + sum(level.square().mean() for level in output.levels)).backward()
    idle = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    net.zero_grad()
    assert idle == []


def test_seeded_weights_repeat_and_leave_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = segmentation_model(SMALL, 2).state_dict()
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        again = Backbone(out_channels=3, **STOCK).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
