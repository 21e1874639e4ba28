"""Headers with a few bytes changed: each is a volume or one sentence; tests/faults/headers.py reads thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fuzz import fuzz, write_seeds


@pytest.mark.parametrize("form", ["dicom", "frames", "nifti", "nrrd", "mha", "pair"])
def test_changed_bytes_lead_to_a_volume_or_a_sentence(tmp_path: Path, form: str) -> None:
    assert fuzz(tmp_path, form, write_seeds(tmp_path)[form], count=60, number=1) == []
