"""No reader fails in another way than it promises, on whatever bytes; ``tests/fuzz.py`` looks further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.broken import BOMB, BROKEN_JSON, DEEP, DIGITS
from helpers.readers import READERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).resolve().parent / "corpus"
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
KEYS = (
    "profile", "commit", "made", "source", "seeds", "versions", "machine", "config", "data", "jobs", "outputs", "bits",
    "settings", "spread", "dice", "weights", "labels", "train", "test", "decides", "task", "percent", "fold", "arm",
    "seed", "step", "grid", "finetune", "loss", "extends", "model",
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
YAML = st.text(st.sampled_from("ab:1 -[]{}&*!|>\n'\"#?,%<=~.0x@`"), max_size=60)
TABLE = st.text(st.sampled_from("ab,1\n\"'=+-.eN\r\0;NAcase"), max_size=80)


@pytest.mark.parametrize("name", READERS)
def test_no_reader_fails_on_the_corpus(name: str) -> None:
    texts = [BOMB, DEEP, DIGITS, f"a: {DEEP}", f"a: {DIGITS}", "data: {root: 2001-99-99}", *BROKEN_JSON]
    for data in (
        *(text.encode() for text in texts),
        *(path.read_bytes() for path in sorted((CORPUS / name).glob("*"))),
    ):
        READERS[name](data)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.binary(max_size=200))
def test_no_reader_fails_on_bytes(name: str, data: bytes) -> None:
    READERS[name](data)


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith("json") or name in ("expected", "metrics")])
@QUICK
@given(value=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8))
def test_no_reader_of_json_fails_on_other_shapes(name: str, value: dict[str, Any]) -> None:
    READERS[name](json.dumps(value).encode())


@pytest.mark.parametrize("name", ["profile", "setting", "yaml"])
@QUICK
@given(text=YAML, value=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_no_reader_of_yaml_fails(name: str, text: str, value: dict[str, Any]) -> None:
    READERS[name](text.encode())
    READERS[name](json.dumps(value).encode())  # JSON is YAML


@pytest.mark.parametrize("name", ["csv", "cases.csv"])
@QUICK
@given(text=TABLE)
def test_no_reader_of_tables_fails(name: str, text: str) -> None:
    READERS[name](text.encode())


@QUICK
@given(value=VALUES, size=st.integers(0, 2**63 - 1), rest=st.binary(max_size=40), true=st.booleans())
def test_no_reader_of_weights_fails(value: Any, size: int, rest: bytes, true: bool) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": value, "data_offsets": [0, 8]}, "__metadata__": value}).encode()
    READERS["weights"]((len(header) if true else size).to_bytes(8, "little") + header + rest)
