"""What an experiment is: frozen, validated settings, whose defaults are the paper's own values.

Section numbers refer to the paper, R-numbers to reproduce/READINGS.md.
"""

import math
import os
import typing
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mixcl.config.data import FINETUNING_SETS, PRETRAINING_SETS, DataConfig
from mixcl.config.data import Collection as Collection
from mixcl.config.data import LabelGrid as LabelGrid
from mixcl.config.data import PhantomConfig as PhantomConfig
from mixcl.config.frozen import Count, Fraction, Frozen, NonNegative, Positive, Seed, check_names
from mixcl.config.grid import GridConfig as GridConfig

TRAININGS, LENGTHS = ("pretrain", "finetune"), ("steps", "epochs")  # sections, and how each says how long it is

Grid = Literal["prepared", "original"]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


LEVELS = {"skip": 5, "tokens": 4}  # that model.levels projects (R1)
SUPERVISED = "supervised"  # the pre-training that has the loss of a fine-tuning
SEGMENTATION_LOSS = ("dice_background", "balance")  # of ``finetune``: that loss (R17)


class ModelConfig(Frozen):
    """Sec. 2.1: UNETR with "the same settings in [8]", and the projectors."""

    patch: int = Field(96, ge=32, multiple_of=16, description="edge of the cubic input patch, voxels")
    feature: int = Field(16, ge=4, description="channels of encoder1; encoder2..4 have 2, 4 and 8 times as many")
    hidden: int = Field(768, ge=12, description="width of the ViT")
    mlp: int = Field(3072, ge=12, description="width of the ViT's feed-forward layers")
    heads: int = Field(12, ge=1, description="attention heads of the ViT")
    levels: Literal["skip", "tokens"] = Field("skip", description="R1: what Z^l is taken from")
    projector_width: int | None = Field(None, ge=1, description="channels of every projector's last layer; None is 2c")

    @model_validator(mode="after")
    def _check(self) -> typing.Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class LossConfig(Frozen):
    """Eq. 2-6."""

    identity: NonNegative = Field(1.0, description="weight of the identity term; Eq. 2 has 1, ablations may use 0")
    alpha: NonNegative = Field(0.01, description="Eq. 2, weight of the label term")
    beta: NonNegative = Field(0.01, description="Eq. 2, weight of the reconstruction term")
    lam: NonNegative = Field(0.0051, description="Eq. 4, lambda; not given in the paper (R5)")
    center: bool = Field(False, description="R4: subtract each channel's mean before Eq. 5")
    level_weights: tuple[NonNegative, ...] | Literal["inverse_channels"] | None = Field(
        None, description="R6, R26: None is the literal sum; inverse_channels divides a level by its channels"
    )
    sync_correlation: bool = Field(True, description="R19: Eq. 5 over all ranks")
    temperature: Positive = Field(0.1, description="Eq. 6, tau")
    label_reduction: Literal["ratio", "supcon", "sum"] = Field("ratio", description="R8, R26")
    background: Literal["ignore_pairs", "ignore_all"] = Field("ignore_pairs", description="R9")
    recon_reduction: Literal["sum", "mean"] = Field("sum", description="R25")


class SamplerConfig(Frozen):
    """Sec. 2.3: pixels (Eq. 7) and patches."""

    budget: int = Field(128, ge=1, description="r, pixels a class; not given in the paper (R13)")
    mu: Positive = Field(8.0, description="Eq. 7")
    eps: Positive = Field(0.05, description="Eq. 7")
    aux_same_image_prob: Fraction = Field(0.5, description="R10: P_2 from I_1 rather than I_2")
    foreground_prob: Fraction = Field(1.0, description="R14: a patch is centred on a labelled voxel")


class ViewsConfig(Frozen):
    """Sec. 3.1, pre-training (R11).  Probabilities are the paper's; magnitudes are not given there (R30)."""

    spatial_prob: Fraction = Field(0.5, description="elastic and affine, each")
    rotate_deg: NonNegative = Field(15.0, description="largest rotation about each axis, degrees")
    scale: float = Field(0.1, ge=0.0, lt=1.0, description="zoom between 1 - scale and 1 + scale")
    shear: NonNegative = Field(0.05, description="largest shear")
    translate: NonNegative = Field(0.05, description="largest shift, as a fraction of the patch edge")
    elastic_grid: int = Field(4, ge=2, description="control points an axis")
    elastic_magnitude: NonNegative = Field(0.06, description="largest displacement of a control point, of the edge")
    intensity_prob: Fraction = Field(0.2, description="shift, gamma, smoothing and noise, each")
    shift: NonNegative = Field(0.1, description="largest intensity shift, as a fraction of the window")
    gamma: tuple[Positive, Positive] = Field((0.7, 1.5), description="range of the exponent")
    smooth_sigma: tuple[NonNegative, NonNegative] = Field((0.5, 1.5), description="voxels")
    noise_std: tuple[NonNegative, NonNegative] = Field((0.0, 0.1), description="fraction of the window")


class FinetuneAugment(Frozen):
    """Sec. 3.1, fine-tuning: rotations by 90 degrees, flips, intensity scale and shift."""

    prob: Fraction = 0.2
    scale: NonNegative = Field(0.1, description="factor between 1 - scale and 1 + scale")
    shift: NonNegative = Field(0.1, description="fraction of the window")


class Training(Frozen):
    """What both trainings have: how long they are (R15), in optimiser steps or in epochs over their scans."""

    steps: Count | None = Field(None, description="R15: optimiser steps, the same for any number of scans")
    epochs: Count | None = Field(None, description="R15: as many steps as take each training scan this often")
    batch: Count

    @model_validator(mode="before")
    @classmethod
    def _replace_default(cls, given: object) -> object:
        """Steps or epochs that are given take the place of the default of the other."""
        return dict.fromkeys(LENGTHS) | given if isinstance(given, dict) and set(LENGTHS) & given.keys() else given

    @model_validator(mode="after")
    def _check(self) -> typing.Self:
        if (self.steps is None) == (self.epochs is None):
            fault = "neither is given" if self.steps is None else f"both are, {self.steps} and {self.epochs}"
            raise ValueError(f"a training is as long as its steps or its epochs say (R15), and {fault}; give one")
        return self

    def total_steps(self, scans: int) -> int:
        """Optimiser steps of a training on ``scans`` scans: ``steps``, or ``epochs`` x ceil(``scans`` / ``batch``).

        >>> PretrainConfig(epochs=1000, batch=6).total_steps(765)
        128000
        >>> [FinetuneConfig(epochs=2000, batch=2).total_steps(scans) for scans in (4, 12, 24)]
        [4000, 12000, 24000]
        """
        return self.steps or (self.epochs or 0) * math.ceil(scans / self.batch)


class PretrainConfig(Training):
    """Sec. 3.1, "Optimization", pre-training; ``method`` names what is trained."""

    method: str = Field("mixcl", description="Eq. 2, another one of mixcl.baselines.METHODS, or none at all")
    epochs: Count | None = Field(1000, description='"1000 iterations" (R15)')
    batch: Count = Field(6, description="samples a step over all ranks: 6 GPUs with 1 each (R19)")
    lr: Positive = 1e-4
    weight_decay: NonNegative = Field(1e-5, description="R15")
    seed: Seed = 0
    log_every: Count = 10
    gradients_every: int = Field(50, ge=0, description="steps between gradient norms of each term; 0 is never")
    probe_every: int = Field(100, ge=0, description="steps between two looks of mixcl.diagnostics; 0 is never")
    checkpoint_every: Count = 100


class FinetuneConfig(Training):
    """Sec. 3.1, "Optimization", fine-tuning, and R16-R18."""

    epochs: Count | None = Field(2000, description='"2000 iterations" (R15)')
    batch: Count = 2
    lr: Positive = 1e-4
    weight_decay: NonNegative = 1e-5
    foreground_prob: Fraction = Field(0.5, description="patches centred on a labelled voxel; not given in the paper")
    dice_background: bool = Field(True, description="R17: the Dice term counts the background as a class")
    balance: Fraction = Field(
        0.0,
        description="R17: in the cross-entropy a class counts by its voxels to the power of 1 - balance; 0 is plain",
    )
    transfer: Literal["encoder", "vit", "all"] = Field("encoder", description="R16: weights handed over")
    freeze: bool = Field(False, description="the encoder keeps the weights it starts from; a control")
    encoder_rate: Fraction = Field(1.0, description="learning rate of the encoder, as a fraction of lr")
    log_every: Count = 20
    probe_every: int = Field(0, ge=0, description="steps between two looks at the test cases, for curves; 0 is never")
    checkpoint_every: Count = 200


class EvaluateConfig(Frozen):
    """Sliding-window prediction and metrics."""

    overlap: float = Field(0.5, ge=0.0, lt=1.0, description="overlap of neighbouring windows")
    windows: Count = Field(4, description="windows a forward pass")
    tolerance_mm: Positive = Field(2.0, description="tolerance of the surface Dice, mm")
    grid: Grid = Field(
        "prepared", description="R32: where it is measured, on data.spacing or on the original scan with its own labels"
    )


class RunConfig(Frozen):
    """The machine, not the science; see :mod:`mixcl.run.device`."""

    precision: Literal["auto", "no", "bf16", "fp16"] = Field(
        "auto", description="autocast type; auto is bf16 on a GPU and no on a CPU"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count = Field(1, description="CPU threads a job; part of what decides the bits")
    workers: int | None = Field(
        None, ge=0, description="processes that cut patches ahead of time; null is none on a CPU, one a core on a GPU"
    )
    channels_last: bool = Field(True, description="convolutions with the channels last in memory")
    compile: bool = Field(False, description="torch.compile for the blocks of the UNETR; changes the last digits")
    folds_a_kernel: Count = Field(1, description="fold jobs that share one notebook kernel; starting one takes seconds")
    tracker: Literal["tensorboard", "mlflow", "wandb"] | None = Field(
        None, description="where metrics go beside metrics.jsonl; an extra of the package, by the same name"
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _no(cls, given: object) -> object:
        """YAML reads an unquoted no as false."""
        return "no" if given is False else given


class Experiment(Frozen):
    """Everything that decides a result."""

    profile: str = "paper"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    sampler: SamplerConfig = SamplerConfig()
    views: ViewsConfig = ViewsConfig()
    finetune_augment: FinetuneAugment = FinetuneAugment()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    run: RunConfig = RunConfig()
    grid: GridConfig = GridConfig()

    @model_validator(mode="after")
    def _check(self) -> typing.Self:
        check_names("profile", [self.profile])
        known = {*PRETRAINING_SETS, *FINETUNING_SETS, *self.data.collections, *self.data.finetune}
        for name in (*self.grid.percents, *self.grid.ablation):
            if name not in known:
                tasks = ", ".join(self.data.finetune) or "none"
                raise ValueError(f"grid has shares of {name!r}, which is no collection; data.finetune has {tasks}")
        given, levels = self.loss.level_weights, LEVELS[self.model.levels]
        if isinstance(given, tuple) and len(given) != levels:
            raise ValueError(f"loss.level_weights has {len(given)} numbers; give {levels}, one a level (R1)")
        return self
