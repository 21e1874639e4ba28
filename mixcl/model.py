"""The network of Sec. 2.1: MONAI's UNETR with its levels exposed, the projectors, and the hand-over to segmentation.

The encoder theta is UNETR's ViT and encoder1 to encoder4, the reconstructor phi its decoder with one output channel;
sigma^l are the projectors.  R-numbers refer to reproduce/READINGS.md.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar, cast

import torch
from monai.networks.nets import UNETR
from torch import Tensor, nn

from mixcl.config.settings import Experiment, ModelConfig

ENCODER = ("vit", "encoder1", "encoder2", "encoder3", "encoder4")
DECODER = ("decoder5", "decoder4", "decoder3", "decoder2")
TRANSFER = {"vit": ENCODER[:1], "encoder": ENCODER, "all": ENCODER + DECODER}  # R16; never the output layer
Net = TypeVar("Net", bound=UNETR)
LABEL_LEVEL = 1  # Z^1, "the 2nd layer", carries the label loss (R1)


class Encoded(NamedTuple):
    """What UNETR's encoder makes of [B, 1, E, E, E]: [B, channels, edge, edge, edge], feature f, width h."""

    skips: tuple[Tensor, ...]  # encoder1..4, (f, E), (2f, E/2), (4f, E/4), (8f, E/8)
    tokens: tuple[Tensor, ...]  # what encoder2..4 read, z3, z6 and z9, (h, E/16) each
    bottleneck: Tensor  # z12, (h, E/16)


class Output(NamedTuple):
    """What pre-training reads of the network."""

    levels: list[Tensor]  # projected levels Z^l, each [B, C_l, *spatial_l]
    restored: Tensor  # [B, 1, E, E, E]


class Backbone(UNETR):
    """MONAI's UNETR whose forward pass can be stopped between encoder and decoder; same weights, same output."""

    def encode(self, x: Tensor) -> Encoded:
        """Run the encoder theta once on [B, 1, E, E, E]."""
        last, hidden = self.vit(x)  # each [B, (E / 16)^3, h]
        z3, z6, z9, z12 = (self.proj_feat(z) for z in (hidden[3], hidden[6], hidden[9], last))  # [B, h, E/16, ...]
        skips = (self.encoder1(x), self.encoder2(z3), self.encoder3(z6), self.encoder4(z9))
        return Encoded(skips, (z3, z6, z9), z12)

    def decode(self, encoded: Encoded) -> Tensor:
        """Run the decoder and the output layer: [B, out_channels, E, E, E]."""
        return cast(Tensor, self.out(self.features(encoded)))

    def features(self, encoded: Encoded) -> Tensor:
        """Run the decoder up to the output layer: [B, f, E, E, E]."""
        x = encoded.bottleneck
        for name, skip in zip(DECODER, reversed(encoded.skips), strict=True):
            x = getattr(self, name)(x, skip)
        return x

    def forward(self, x_in: Tensor) -> Tensor:
        """[B, 1, E, E, E] -> [B, out_channels, E, E, E]."""
        return self.decode(self.encode(x_in))


class Projector(nn.Module):
    """sigma^l: three 1x1x1 convolutions with c, c and 2c channels, instance norm and leaky ReLU between (Sec. 2.1).

    ``trunk`` is everything before the last convolution ``last``, so that Eq. 5 can be folded through the latter.
    """

    def __init__(self, channels: int, width: int | None = None) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv3d(channels, channels, 1, bias=False),
            nn.InstanceNorm3d(channels),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(channels, channels, 1, bias=False),
            nn.InstanceNorm3d(channels),
            nn.LeakyReLU(0.01, inplace=True),
        )
        self.last = nn.Conv3d(channels, width or 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, \\*spatial] -> [B, 2c, \\*spatial]."""
        return cast(Tensor, self.last(self.trunk(x)))

    def pixels(self, trunk: Tensor, indices: Tensor) -> Tensor:
        """The last convolution at some pixels alone: trunk output [c, \\*spatial], flat indices [n] -> [n, 2c]."""
        picked = trunk.flatten(1).index_select(1, indices).T  # [n, c]
        return nn.functional.linear(picked, self.last.weight.flatten(1), self.last.bias)


class MixCL(nn.Module):
    """Encoder theta, projectors sigma and reconstructor phi, of an experiment or its model settings.

    >>> from mixcl.config import load_profile
    >>> output = MixCL(load_profile("smoke"))(torch.zeros(1, 1, 32, 32, 32))
    >>> [tuple(level.shape[1:]) for level in output.levels]
    [(8, 32, 32, 32), (16, 16, 16, 16), (32, 8, 8, 8), (64, 4, 4, 4), (48, 2, 2, 2)]
    """

    def __init__(self, config: ModelConfig | Experiment) -> None:
        super().__init__()
        self.config = config.model if isinstance(config, Experiment) else config
        self.backbone = _unetr(Backbone, self.config, out_channels=1)
        width = self.config.projector_width
        self.projectors = nn.ModuleList(Projector(channels, width) for channels in level_channels(self.config))

    def projector(self, level: int) -> Projector:
        """sigma^l of a level."""
        return cast(Projector, self.projectors[level])

    def widths(self) -> tuple[int, ...]:
        """Channels of each projected level, 2 c^l unless ``projector_width`` says otherwise."""
        return tuple(self.projector(level).last.out_channels for level in range(len(self.projectors)))

    def level_maps(self, encoded: Encoded) -> list[Tensor]:
        """R1: the encoder's outputs that are projected, [B, c_l, \\*spatial_l] each."""
        first = encoded.skips if self.config.levels == "skip" else encoded.tokens
        return [*first, encoded.bottleneck]

    def forward(self, x: Tensor) -> Output:
        """[B, 1, E, E, E], intensities in [0, 1] -> projected levels and restored patch."""
        encoded = self.backbone.encode(x)
        levels = [p(z) for p, z in zip(self.projectors, self.level_maps(encoded), strict=True)]
        return Output(levels, self.backbone.decode(encoded))

    def encoder_state_dict(self) -> dict[str, Tensor]:
        """Weights of theta under the keys of ``monai.networks.nets.UNETR``; load with ``strict=False``."""
        return select(self.backbone.state_dict(), "encoder")


def select(state: Mapping[str, Tensor], transfer: str) -> dict[str, Tensor]:
    """The entries of a UNETR's state dict, or of its parameters by name, that ``transfer`` names (R16)."""
    return {name: value for name, value in state.items() if name.split(".")[0] in TRANSFER[transfer]}


def segmentation_model(config: ModelConfig, n_labels: int) -> UNETR:
    """A stock MONAI UNETR with ``n_labels`` + 1 output channels, background first."""
    return _unetr(UNETR, config, out_channels=n_labels + 1)


def level_channels(config: ModelConfig) -> tuple[int, ...]:
    """c^l, the channels of each level before its projector (R1)."""
    if config.levels == "tokens":
        return (config.hidden,) * 4
    return (*(config.feature * 2**i for i in range(4)), config.hidden)


def level_edges(config: ModelConfig) -> tuple[int, ...]:
    """Edge of each level's grid, voxels (R1)."""
    if config.levels == "tokens":
        return (config.patch // 16,) * 4
    return (*(config.patch // 2**i for i in range(4)), config.patch // 16)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from ``seed`` and leave torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _unetr(kind: type[Net], config: ModelConfig, out_channels: int) -> Net:
    net = kind(
        in_channels=1, out_channels=out_channels, img_size=(config.patch,) * 3, feature_size=config.feature,
        hidden_size=config.hidden, mlp_dim=config.mlp, num_heads=config.heads, norm_name="instance",
    )  # fmt: skip
    for name, parameter in net.named_parameters():
        if "norm_cross_attn" in name:  # MONAI keeps it without using it; it would never get a gradient
            parameter.requires_grad_(False)
    return net
