"""Draw the README's first picture, framework.png and .pdf: the parts of MixCL, from the walk-through's own network.

    python figures/framework.py

What is shown is what notebook 00 shows: the first sample with most labels in common, and what the shipped weights make
of it (mixcl/lessons/weights); `reproduce/walkthrough.sh --train` calls this.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from mixcl import figures
from mixcl.config import load_profile
from mixcl.lessons import networks, overview, scene

HERE = Path(__file__).resolve().parent


def draw(out: Path) -> overview.Sketch:
    """The framework, of phantoms that are prepared in ``out``."""
    config = load_profile("walkthrough")
    pair = scene.choose(config, scene.ready(config, out))
    *_, model = networks.stages(config, out).values()
    return overview.framework(model, pair, scene.batch(config, pair.raw, spatial_prob=0.0, intensity_prob=1.0))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        figures.save(draw(Path(folder)), HERE / "framework")
