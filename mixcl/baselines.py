"""What MixCL is compared with: other pre-trainings of the same network on the same patches, for the same steps.

Each is a module over a :class:`mixcl.model.MixCL` whose encoder it trains; its forward pass takes the batch of a step
(:class:`mixcl.batches.Batch`) and gives terms with a ``total``, as :class:`mixcl.objective.Objective` does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mixcl import batches, losses
from mixcl.batches import Batch
from mixcl.config.settings import SUPERVISED, Experiment, FinetuneConfig
from mixcl.data.registry import collections
from mixcl.errors import InputError
from mixcl.labels import UNKNOWN
from mixcl.metrics import class_indices
from mixcl.model import MixCL, level_channels
from mixcl.objective import Objective, Pretraining


class Total(NamedTuple):
    """A single loss."""

    total: Tensor


class Restored(NamedTuple):
    """``total`` = ``recon`` * (1 + ``contrast``)."""

    total: Tensor
    recon: Tensor
    contrast: Tensor


def objective(config: Experiment) -> Pretraining:
    """The module of ``pretrain.method``, with fresh weights; InputError for no such method, or too small a batch."""
    method = config.pretrain.method
    if method == "none":
        raise InputError("pretrain.method=none: there is nothing to pre-train; leave this job out")
    if method not in METHODS:
        raise InputError(f"pretrain.method={method}: no such pre-training; choose one of {', '.join(METHODS)}, none")
    pretraining = METHODS[method](MixCL(config), config)
    if pretraining.compares_samples and config.pretrain.batch < 2:
        raise InputError(f"pretrain.method={method} compares the samples of a step: set pretrain.batch to 2 or more")
    return pretraining


def check_ranks(pretraining: Pretraining, ranks: int) -> None:
    """Refuse several processes for what compares the samples of a step with each other and does so within a process."""
    if ranks > 1 and pretraining.compares_samples:
        raise InputError(
            f"this pre-training ({type(pretraining).__name__}) compares the samples of a step, which {ranks} processes "
            "do not see together; run it in one process"
        )


class Barlow(Pretraining):
    """Barlow Twins on the level of images (Zbontar et al., 2021).

    All levels of the encoder are averaged over space and put side by side, then projected to twice their number; the
    centred cross-correlation of the two views' vectors over the samples of a step is pulled towards identity.
    """

    compares_samples = True

    def __init__(self, model: MixCL, config: Experiment) -> None:
        super().__init__(model)
        self.lam = config.loss.lam
        width = sum(level_channels(model.config))
        self.projector = nn.Sequential(
            nn.Linear(width, 2 * width, bias=False), nn.BatchNorm1d(2 * width), nn.ReLU(),
            nn.Linear(2 * width, 2 * width),
        )  # fmt: skip

    def forward(self, batch: Batch) -> Total:
        """The loss of the views V_1 and V'_1 of every sample."""
        samples = len(batch.samples)
        encoded = self.model.backbone.encode(batch.views[: 2 * samples])
        pooled = torch.cat([z.flatten(2).mean(2) for z in self.model.level_maps(encoded)], dim=1)  # [2B, width]
        first, second = (self.projector(part)[:, :, None] for part in pooled.split(samples))  # [B, 2 width, 1]
        correlation = losses.cross_correlation(first, second, center=True)
        return Total(losses.decorrelation(correlation, lam=self.lam))


class Masked(Pretraining):
    """Masked restoration with contrast, as MONAI's tutorial "Self-Supervised Pre-training" trains.

    Two copies of a patch lose boxes (inside or all around them) and have voxels shuffled in others; the L1 distance of
    the first one's restoration to the patch is multiplied by 1 + the contrastive loss of both restorations.  Sizes of
    boxes are the tutorial's, as fractions of its 96 voxels.
    """

    compares_samples = True

    def __init__(self, model: MixCL, config: Experiment) -> None:
        super().__init__(model)
        from monai.losses import ContrastiveLoss

        self.seed = config.pretrain.seed
        self.contrast = ContrastiveLoss(temperature=0.05)

    def forward(self, batch: Batch) -> Restored:
        """Restore the patches P_1, undistorted but for the spatial step."""
        samples = len(batch.samples)
        patches = batch.patches[:samples]
        masked = [
            mask(patch, int(batches.generator(self.seed, k, purpose).initial_seed() % 2**32))
            for purpose in (20, 21) for patch, k in zip(patches, batch.samples, strict=True)
        ]  # fmt: skip
        restored = self.model.backbone.decode(self.model.backbone.encode(torch.stack(masked)))  # [2B, 1, E, E, E]
        first, second = restored.float().split(samples)
        recon = nn.functional.l1_loss(first, patches.float())
        contrast = self.contrast(first.flatten(1), second.flatten(1))
        return Restored(recon * (1 + contrast), recon, contrast)

    def weighted_terms(self, terms: Any) -> dict[str, Tensor]:
        return {"recon": terms.recon, "contrast": terms.total - terms.recon}


class Supervised(Pretraining):
    """Segmentation of the pooled collections, each with an output layer of its own (Dice + cross-entropy).

    The ceiling of what labels of other organs can give: it sees every label of every patch.
    """

    def __init__(self, model: MixCL, config: Experiment) -> None:
        super().__init__(model)
        sets = collections(config.data)
        self.values = [sorted(sets[name].organs) for name in config.data.pretrain]
        self.heads = nn.ModuleList(nn.Conv3d(model.config.feature, len(values) + 1, 1) for values in self.values)
        self.criterion = SegmentationLoss(config.finetune)

    def forward(self, batch: Batch) -> Total:
        """The mean over samples of the loss of V_1 and V_2 under their collection's head."""
        samples = len(batch.samples)
        views = torch.cat([batch.views[:samples], batch.views[2 * samples :]])  # [2B, 1, E, E, E]
        features = self.model.backbone.features(self.model.backbone.encode(views))  # [2B, f, E, E, E]
        parts = []
        for row, number in enumerate(batch.collections):
            both = [row, samples + row]
            classes = class_indices(batch.maps[both], self.values[number])
            parts.append(self.criterion(self.heads[number](features[both]).float(), classes[:, None]))
        return Total(torch.stack(parts).mean())


class SegmentationLoss(nn.Module):
    """MONAI's Dice loss and torch's cross-entropy, added up (R17).

    With ``balance`` b a voxel of a class with n voxels in the batch weighs n^-b in the mean of the cross-entropy: large
    organs do not drown small ones, and no class's weight has to be known beforehand.  Voxels of UNKNOWN take no part in
    either, as if they were cut out of the patch (R33); where there are no others, both are 0.  A batch that is
    ``spread`` over ranks counts as one, with the averaging of their gradients.
    """

    def __init__(self, settings: FinetuneConfig, *, spread: bool = False) -> None:
        super().__init__()
        from monai.losses import DiceLoss

        self.balance, self.spread = settings.balance, spread
        self.dice = DiceLoss(
            to_onehot_y=True, softmax=True, include_background=settings.dice_background, ignore_index=UNKNOWN
        )

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Logits [B, C, *spatial] and classes [B, 1, *spatial]; the loss, a number."""
        target, weight = classes[:, 0].long(), None
        if self.balance or self.spread:
            own = torch.stack([(target == c).sum() for c in range(logits.shape[1])])
            voxels = own.clone()
            if self.spread:
                dist.all_reduce(voxels)
            weight = voxels.clamp(min=1).to(torch.promote_types(logits.dtype, torch.float32)) ** -self.balance
        entropy = nn.functional.cross_entropy(logits, target, weight, ignore_index=UNKNOWN)  # NaN of no voxel
        entropy = torch.where((target != UNKNOWN).any(), entropy, 0.0)
        if self.spread and weight is not None:  # a mean over the voxels of this rank becomes one over those of all
            mine, of_all = weight @ own.to(weight), weight @ voxels.to(weight)
            entropy = entropy * mine * dist.get_world_size() / torch.where(of_all > 0, of_all, 1.0)
        loss: Tensor = self.dice(logits, classes) + entropy
        return loss


def mask(patch: Tensor, seed: int) -> Tensor:
    """[1, E, E, E] with boxes emptied, or all but boxes, and voxels shuffled in others; MONAI's transforms."""
    from monai.transforms import Compose, OneOf, RandCoarseDropout, RandCoarseShuffle

    def part(of_96: int) -> int:
        return max(1, round(patch.shape[-1] * of_96 / 96))

    distort = Compose([
        OneOf([
            RandCoarseDropout(6, part(5), dropout_holes=True, max_spatial_size=part(32), prob=1.0),
            RandCoarseDropout(6, part(20), dropout_holes=False, max_spatial_size=part(64), prob=1.0),
        ]),
        RandCoarseShuffle(10, part(8), prob=0.8),
    ])  # fmt: skip
    distort.set_random_state(seed=seed)
    return torch.as_tensor(distort(patch.clone()), dtype=patch.dtype, device=patch.device)


METHODS: dict[str, Callable[[MixCL, Experiment], Pretraining]] = {
    "mixcl": lambda model, config: Objective(model, config.loss),
    "barlow": Barlow,
    "masked": Masked,
    SUPERVISED: Supervised,
}
"""``pretrain.method`` -> what trains so.  A further pre-training is a class as those above and one line here."""
