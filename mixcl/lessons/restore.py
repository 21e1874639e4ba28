"""Notebook 04: what the reconstructor makes of views by the strength of their distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mixcl import augment, losses
from mixcl.batches import generator
from mixcl.config.settings import ViewsConfig
from mixcl.figures import panels
from mixcl.figures.choice import choose_slice
from mixcl.figures.style import OKABE_ITO, STYLE, Sketch, write_caption
from mixcl.lessons.scene import Pair
from mixcl.model import MixCL

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)


class Restored(NamedTuple):
    """P_1 [E, E, E], a view of it, and what the network restores of the view; in fractions of the window."""

    patch: NDArray[np.float32]
    view: NDArray[np.float32]
    restored: NDArray[np.float32]

    def errors(self) -> dict[str, float]:
        """Eq. 3 as printed, a sum over voxels, of the view and of what is restored; and their roots of the mean."""
        patch = torch.from_numpy(self.patch)[None, None]
        result = {}
        for name, image in (("view", self.view), ("restored", self.restored)):
            given = torch.from_numpy(image)[None, None]
            result[f"{name}, sum"] = float(losses.reconstruction_consistency(given, patch))
            result[f"{name}, RMS"] = float(losses.reconstruction_consistency(given, patch, reduction="mean")) ** 0.5
        return result


def stronger(config: ViewsConfig, by: float) -> ViewsConfig:
    """All intensity distortions switched on, their magnitudes multiplied; 0 leaves the patch as it is.

    >>> stronger(ViewsConfig(), 2).shift, stronger(ViewsConfig(), 0).gamma
    (0.2, (1.0, 1.0))
    """
    return config.model_copy(
        update={
            "intensity_prob": 1.0, "shift": by * config.shift,
            "gamma": (config.gamma[0] ** by, config.gamma[1] ** by),
            "smooth_sigma": (by * config.smooth_sigma[0], by * config.smooth_sigma[1]),
            "noise_std": (by * config.noise_std[0], by * config.noise_std[1]),
        }
    )  # fmt: skip


def restore(
    model: MixCL, pair: Pair, config: ViewsConfig, strengths: Sequence[float] = STRENGTHS, seed: int = 0
) -> dict[float, Restored]:
    """P_1 restored from views of growing distortion, all of the same draw."""
    patch = pair.raw["image"][:1]
    made = [augment.views(patch, stronger(config, s), generator(seed)) for s in strengths]
    with torch.no_grad():
        restored = model(torch.cat(made)).restored
    return {
        s: Restored(patch[0, 0].numpy(), view[0, 0].numpy(), out[0].numpy())
        for s, view, out in zip(strengths, made, restored, strict=True)
    }


def strips(pair: Pair, shown: Mapping[float, Restored]) -> Figure:
    """Rows: view, restored patch, difference to the patch.  Columns: strength of the distortion."""
    index = choose_slice(pair.raw["label"][0].numpy())
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(1.6 * len(shown) + 1.1, 5.3), layout="constrained")
        axes = figure.subplots(3, len(shown))
        for column, (strength, one) in enumerate(shown.items()):
            panels.patch(axes[0, column], one.view, index, pair.spacing, bar=column == 0)
            panels.patch(axes[1, column], one.restored, index, pair.spacing, bar=False)
            difference = panels.patch_difference(axes[2, column], one.restored - one.patch, index, pair.spacing)
            axes[0, column].set_title(f"distortion x {strength:g}")
            axes[2, column].set_title(f"RMS {one.errors()['restored, RMS']:.3f}", fontsize=7)
        for ax, text in zip(axes[:, 0], ("view", "restored", "restored - patch"), strict=True):
            ax.set_ylabel(text)
        figure.colorbar(difference, ax=axes[2], shrink=0.9, label="fraction of the window")
        case = pair.places[0][0]
        write_caption(
            figure, f"$P_1$: {case.collection}, case {case.id}. x 1: every distortion on, magnitudes as in the "
            f"settings. One draw, of growing strength. {pair.told}",
        )  # fmt: skip
    return figure


def before_after(pair: Pair, stages: Mapping[str, Restored]) -> Figure:
    """The patch, its view, and what each stage of training restores of the view."""
    index = choose_slice(pair.raw["label"][0].numpy())
    first = next(iter(stages.values()))
    shown = {"patch": first.patch, "view": first.view, **{f"restored {t}": one.restored for t, one in stages.items()}}
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(2.0 * len(shown), 2.5), layout="constrained")
        for ax, (title, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
            panels.patch(ax, image, index, pair.spacing, bar=title == "patch")
            ax.set_title(title)
        write_caption(figure, pair.told)
    return figure


def table(stages: Mapping[str, Mapping[float, Restored]]) -> pd.DataFrame:
    """Errors by stage and strength, and by how much the restored patch is nearer to the patch than the view was."""
    rows = {(stage, s): one.errors() for stage, shown in stages.items() for s, one in shown.items()}
    frame = pd.DataFrame(rows).T.rename_axis(["stage", "distortion"])
    return frame.assign(gain=frame["view, RMS"] - frame["restored, RMS"])


def curve(frame: pd.DataFrame, told: str) -> Figure:
    """RMS error of the view itself and of what each stage restores, against the strength of the distortion."""
    with matplotlib.rc_context(STYLE):
        figure = Sketch(figsize=(4.6, 2.5), layout="constrained")
        ax = figure.subplots()
        stages = list(dict.fromkeys(frame.index.get_level_values("stage")))
        view = frame.loc[stages[0], "view, RMS"]
        ax.plot(view.index, view, "--", color="black", label="the view as it is")
        for stage, colour, sign in zip(stages, ("0.6", *OKABE_ITO), "osD^v<>", strict=False):
            values = frame.loc[stage, "restored, RMS"]
            ax.plot(values.index, values, f"{sign}-", color=colour, ms=4, label=f"restored {stage}")
        ax.set(xlabel="strength of the distortion", ylabel="RMS error", yscale="log")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        write_caption(figure, f"RMS error against the patch, in fractions of the window. {told}")
    return figure
