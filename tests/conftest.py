"""What several test files share: the smoke profile's phantoms, made and prepared once a process."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from mixcl.config import load_profile
from mixcl.config.settings import Experiment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that none is left for the end, when other processes have nothing to do."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results of the smoke profile with its collections prepared; tests must not change it."""
    from mixcl.data.prepare.run import prepare

    out = tmp_path_factory.mktemp("smoke")
    prepare(load_profile("smoke"), out, workers=1, progress=False)
    return out


@pytest.fixture
def smoke(prepared: Path) -> Experiment:
    """The smoke profile, reading the shared store whatever the folder of results."""
    return load_profile("smoke", [f"data.store={prepared / 'data' / 'store'}"])


@pytest.fixture(scope="session")
def realct() -> Path:
    """Folder of the real scans, which are not part of this repository."""
    places = [os.environ.get("MIXCL_REALCT"), Path(__file__).resolve().parents[2] / "shared" / "realct"]
    for place in places:
        if place and (Path(place) / "CASES.json").is_file():
            return Path(place)
    pytest.skip("the real scans are not here: set MIXCL_REALCT to their folder")
