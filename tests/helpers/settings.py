"""Settings for tests."""

from __future__ import annotations

from mixcl.config.settings import Experiment


def change(config: Experiment, **sections: dict[str, object]) -> Experiment:
    """The experiment with some settings of some sections changed."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    )
