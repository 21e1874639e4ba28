"""Eq. 2 on a batch: one encoder pass over the three views, the large levels folded and recomputed, not stored.

The three views V_1, V'_1 and V_2 go through the encoder as one batch.  At the large levels a projector's maps would
rival the backbone's own memory; there the last convolution is folded into the sums of Eq. 5 and the rest of the
projector is computed again in the backward pass, so that only what goes in and what comes out is kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixcl import losses
from mixcl.batches import Batch
from mixcl.config.settings import LossConfig
from mixcl.errors import InputError
from mixcl.model import LABEL_LEVEL, MixCL, level_edges, select
from mixcl.moments import Moments, as_float, folded_moments, full_precision, moments, sum_over_ranks

FOLD = 16  # fold a level into its moments when it has at least this many positions a channel and sample


class Terms(NamedTuple):
    """The scalars of Eq. 2 before weighting, and what is logged beside them."""

    total: Tensor
    identity: Tensor
    label: Tensor
    recon: Tensor
    levels: Tensor  # [L], the brackets that ``identity`` sums up; if that has no weight, 0 but at the label level
    without_positive: Tensor  # samples, a count


class Pretraining(nn.Module, ABC):
    """What a pre-training optimises: a module that takes a :class:`Batch` and gives terms with a ``total``."""

    model: MixCL
    compares_samples = False  # with each other: a step needs two of them, in one process
    trains_projectors = False  # so that projected features can be looked at, too

    def __init__(self, model: MixCL) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """A named tuple of scalars, all of them logged, the field ``total`` being what is minimised."""

    def weighted_terms(self, terms: Any) -> dict[str, Tensor]:
        """The weighted terms by name, so that their gradients can be compared."""
        return {"total": terms.total}


class Objective(Pretraining):
    """Eq. 2 as a module, so that data-parallel wrappers see one forward pass.

    ValueError for unfit level weights, InputError where no term has a weight.
    """

    trains_projectors = True

    def __init__(self, model: MixCL, config: LossConfig) -> None:
        super().__init__(model)
        self.config = config
        self.level_weights = _level_weights(model, config)
        if not (config.alpha or config.beta or (config.identity and any(self.level_weights))):
            raise InputError(
                "loss.identity, alpha and beta leave no term to train on; give one of them a weight above 0"
            )

    def forward(self, batch: Batch) -> Terms:
        """All terms of Eq. 2; a term whose weight is 0 is still computed where it costs nothing to know."""
        config, zero = self.config, batch.views.new_zeros((), dtype=torch.float32)
        encoded = self.model.backbone.encode(batch.views)
        recon = zero
        if config.beta > 0:
            restored = self.model.backbone.decode(encoded)  # [3B, 1, E, E, E]
            recon = losses.reconstruction_consistency(restored, batch.patches, reduction=config.recon_reduction)
        known, embeddings = dict[int, Moments](), list[tuple[Tensor, Tensor]]()
        for index, z in enumerate(self.model.level_maps(encoded)):
            wants_label = index == LABEL_LEVEL and config.alpha > 0
            if config.identity > 0 or wants_label:
                own, picked = self._level(index, z, batch.pixels if wants_label else ())
                known[index] = sum_over_ranks(own) if config.sync_correlation else own
                embeddings += picked
        label, without = self._label(embeddings, batch.labels) if embeddings else (zero, zero)
        brackets = dict[int, Tensor]()
        if known:  # each with its own weight (R6)
            sums, weights = list(known.values()), [self.level_weights[index] for index in known]
            values = losses.identity_levels(sums, lam=config.lam, center=config.center, level_weights=weights)
            brackets = dict(zip(known, values, strict=True))
        levels = torch.stack([brackets.get(index, zero) for index in range(len(self.level_weights))])  # [L]
        identity = levels.sum()
        total = losses.mixcl_loss(identity, label, recon, alpha=config.alpha, beta=config.beta, gamma=config.identity)
        return Terms(total, identity, label, recon, levels.detach(), without)

    def weighted_terms(self, terms: Any) -> dict[str, Tensor]:
        weights = {"identity": self.config.identity, "label": self.config.alpha, "recon": self.config.beta}
        return {name: weight * getattr(terms, name) for name, weight in weights.items()}

    def _level(
        self, index: int, z: Tensor, pixels: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Moments, list[tuple[Tensor, Tensor]]]:
        """Eq. 5's sums of one level and, where pixels are given, their embeddings in P_1 and P_2."""
        projector, samples = self.model.projector(index), len(z) // 3
        used = z if pixels else z[: 2 * samples]  # [3B or 2B, c, e, e, e]
        if z.device.type == "cpu":
            used = used.contiguous()  # where convolutions of one voxel are several times faster, to the same bits
        fold = used[0, 0].numel() >= FOLD * used.shape[1]
        if fold:
            trunk = checkpoint(projector.trunk, used, use_reentrant=False, preserve_rng_state=False)
        else:
            trunk = projector.trunk(used)
        a, b = trunk[:samples], trunk[samples : 2 * samples]  # [B, c, e, e, e]
        with full_precision(trunk):
            if fold:
                sums = folded_moments(a, b, projector.last.weight.flatten(1), cast(Tensor, projector.last.bias))
            else:
                projected = projector.last(as_float(trunk[: 2 * samples]))
                sums = moments(projected[:samples], projected[samples:])
            picked = [
                (projector.pixels(as_float(a[i]), in_1), projector.pixels(as_float(trunk[2 * samples + i]), in_2))
                for i, (in_1, in_2) in enumerate(pixels)
            ]
        return sums, picked

    def _label(
        self, embeddings: Sequence[tuple[Tensor, Tensor]], labels: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Eq. 6, averaged over samples (R29), and the number of samples without a positive pair (R14)."""
        config = self.config
        terms, without = [], []
        for (z_1, z_2), (s_1, s_2) in zip(embeddings, labels, strict=True):
            terms.append(
                losses.label_consistency(
                    z_1, z_2, s_1, s_2, temperature=config.temperature,
                    reduction=config.label_reduction, background=config.background,
                )
            )  # fmt: skip
            without.append((losses.label_relation(s_1, s_2) == 1).any().logical_not())
        return torch.stack(terms).mean(), torch.stack(without).sum()


def _level_weights(model: MixCL, config: LossConfig) -> tuple[float, ...]:
    """One factor a level (R6, R26)."""
    widths = model.widths()
    if config.level_weights is None:
        return (1.0,) * len(widths)
    if config.level_weights == "inverse_channels":
        return tuple(1.0 / width for width in widths)
    if len(config.level_weights) != len(widths):
        raise ValueError(f"loss.level_weights has {len(config.level_weights)} entries for {len(widths)} levels")
    return tuple(float(w) for w in config.level_weights)


def floors(model: MixCL, config: LossConfig, samples: int) -> list[float]:
    """The least each level's share of Eq. 4 can be with ``samples`` samples a step, weighted (R28)."""
    edges, widths = level_edges(model.config), model.widths()
    weights = _level_weights(model, config)
    return [
        weight * losses.identity_floor(width, max(samples * edge**3 - config.center, 1), lam=config.lam)
        for weight, width, edge in zip(weights, widths, edges, strict=True)
    ]


def gradient_norms(objective: Pretraining, terms: Any) -> dict[str, float]:
    """L2 norm of each weighted term's gradient on the shared encoder theta; one backward pass a term.

    ``terms`` are what the forward pass gave.  Before the step's own backward pass; it leaves ``.grad`` alone and
    keeps the graph.  Of several ranks each has the norms of its own samples, and the first one's are logged.
    """
    norms = {}
    for name, gradients in _gradients(objective, terms):
        norms[name] = float(torch.stack([g.float().norm() for g in gradients]).norm()) if gradients else 0.0
    return norms


def gradient_coverage(objective: Pretraining, terms: Any) -> dict[str, float]:
    """Share of theta's weights that each weighted term's gradient gets to, 0 to 1; the rest stays as it was drawn.

    Eq. 6 looks at one shallow level (R1), so what is computed after it learns nothing from labels.
    """
    total = sum(p.numel() for p in _encoder(objective))
    return {
        name: sum(g.numel() for g in gradients if g.any()) / total for name, gradients in _gradients(objective, terms)
    }


def _gradients(objective: Pretraining, terms: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Each weighted term's name, and its gradients on the weights of theta that it reaches."""
    for name, term in objective.weighted_terms(terms).items():
        gradients: Sequence[Tensor | None] = ()
        if term.requires_grad:
            gradients = torch.autograd.grad(term, _encoder(objective), retain_graph=True, allow_unused=True)
        yield name, [g for g in gradients if g is not None]


def _encoder(objective: Pretraining) -> list[Tensor]:
    """The weights of theta that learn."""
    weights = select(dict(objective.model.backbone.named_parameters()), "encoder")
    return [p for p in weights.values() if p.requires_grad]
