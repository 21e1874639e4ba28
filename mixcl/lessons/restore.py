"""Figures of notebook 04: what the reconstructor makes of views by the strength of their distortion."""

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from mixcl.config.settings import ViewsConfig
from mixcl.figures import ct, panels
from mixcl.figures.style import OKABE_ITO, Sketch, write_caption
from mixcl.lessons.scene import Pair


def stronger(config: ViewsConfig, by: float) -> ViewsConfig:
    """All intensity distortions switched on, their magnitudes multiplied; 0 leaves the patch as it is.

    >>> stronger(ViewsConfig(), 2).shift, stronger(ViewsConfig(), 0).gamma
    (0.2, (1.0, 1.0))
    """
    gamma = tuple(end**by for end in config.gamma)
    ranges = {name: tuple(by * end for end in getattr(config, name)) for name in ("smooth_sigma", "noise_std")}
    update = {"intensity_prob": 1.0, "shift": by * config.shift, "gamma": gamma, **ranges}
    return config.model_copy(update=update)


def before_after(pair: Pair, shown: Mapping[str, Tensor]) -> Sketch:
    """Patches [1, 1, E, E, E] side by side, by title."""
    with Sketch.grid(len(shown), len(shown), 2.4, 2.9) as (figure, axes):
        for k, (ax, (title, image)) in enumerate(zip(axes, shown.items(), strict=True)):
            panels.patch(ax, image[0, 0].numpy(), pair.slice, pair.spacing, title=title, bar=k == 0)
        return write_caption(figure, "", "; ".join(" ".join(title.split()).replace("$", "") for title in shown))


def strips(pair: Pair, views: Mapping[float, Tensor], restored: Tensor, errors: Sequence[float]) -> Sketch:
    """Rows: view, restored patch, difference to the patch.  Columns: strength of the distortion.

    ``views`` [1, 1, E, E, E] by strength, ``restored`` [n, 1, E, E, E] from each of them, ``errors`` [n] of these.
    """
    index, patch = pair.slice, pair.raw["image"][0, 0].numpy()
    with Sketch.sized(2.1 * len(views) + 1.3, 6.8, 3, len(views)) as (figure, axes):
        for k, ((strength, view), error) in enumerate(zip(views.items(), errors, strict=True)):
            title, after = f"x {strength:g}", restored[k, 0].numpy()
            panels.patch(axes[0, k], view[0, 0].numpy(), index, pair.spacing, title=title, bar=k == 0)
            panels.patch(axes[1, k], after, index, pair.spacing, bar=False)
            ct.show_ct(axes[2, k], after - patch, index, pair.spacing, (-0.3, 0.3), "PuOr_r")
            axes[2, k].set_title(f"RMS {error:.3f}")
        for ax, text in zip(axes[:, 0], ("view", "restored", "restored - patch"), strict=True):
            ax.set_ylabel(text)
        figure.colorbar(axes[2, 0].images[0], ax=axes[2], shrink=0.9, label="fraction of the window")
        each = [f"RMS {error:.3f} at x {strength:g}" for strength, error in zip(views, errors, strict=True)]
        alt = f"Views ever more distorted, what is restored of each, and the difference: {', '.join(each)}"
        return write_caption(figure, "x 1: all distortions on, as strong as in the settings.", alt)


def curve(errors: pd.DataFrame) -> Sketch:
    """RMS error of the view itself, the first column, and of what each stage restores, against the strength (rows)."""
    with Sketch.sized(9.0, 3.4) as (figure, ax):
        styles = ["--", *(f"{sign}-" for sign in "osD^v<>")][: errors.shape[1]]
        errors.plot(ax=ax, logy=True, style=styles, color=["black", "0.6", *OKABE_ITO][: errors.shape[1]], ms=6)
        ax.set(xlabel="strength of the distortion", ylabel="RMS error")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        won = [f"x {strength:g}" for strength in errors.index[errors.iloc[:, -1] < errors.iloc[:, 0]]]
        better = ", ".join(won) or "none"
        alt = f"The line of '{errors.columns[-1]}' is below the dashed one of the view at {better}."
        return write_caption(figure, "RMS error against the patch, in fractions of the window.", alt)
