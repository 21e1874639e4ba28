"""Settings from a YAML profile and ``--set key=value``.

A profile names only what differs from the defaults of :mod:`mixcl.config.settings`, or from the profile that it
``extends``.  Every unknown or ill-typed key is refused with the nearest valid name.
"""

import difflib
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mixcl.config.settings import LENGTHS, TRAININGS, Experiment
from mixcl.config.text import read_text, read_value, read_yaml, words
from mixcl.errors import InputError
from mixcl.files import DEEPEST

PACKAGE = Path(__file__).resolve().parents[1]
PROFILE_FOLDERS = (PACKAGE.parent / "reproduce" / "profiles", PACKAGE / "profiles")  # of a checkout, of a wheel


def load_profile(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read a profile by name (``smoke``, ``phantom``, ``paper``...) or path and apply ``section.key=value`` overrides.

    Values are YAML: ``loss.level_weights=[1,1,1,0,0]``.  ``phantom.seed=1`` is short for ``data.phantom.seed=1``.
    Raises InputError for an unknown profile, unreadable YAML, an unknown key or a value of the wrong kind.

    >>> load_profile("paper", ["loss.alpha=0.1"]).loss.alpha
    0.1
    """
    where = f"profile {str(name_or_path)!r}"
    config = _experiment(_read(str(name_or_path), seen=()), overrides, where)
    for name, settings in config.grid.variants.items():
        with_settings(config, settings, f"{where}, variant {name!r}")
    return config


def with_settings(config: Experiment, overrides: Iterable[str], where: str = "") -> Experiment:
    """An experiment with some settings changed, such as those of a variant; nothing is read from the disk.

    Raises InputError as `load_profile` does; ``where`` says whose setting it is, else the profile's name.

    >>> with_settings(load_profile("smoke"), ["loss.alpha=0.1"]) == load_profile("smoke", ["loss.alpha=0.1"])
    True
    """
    return _experiment(config.model_dump(), overrides, where or f"profile {config.profile!r}")


def _experiment(values: dict[str, Any], overrides: Iterable[str], where: str) -> Experiment:
    values = _lay(values, [_parse_override(item) for item in overrides])
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error)}") from None


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        if path := _expanded(name):
            return path
        raise InputError(f"{words(name, 200)}: no such profile file; check the path given to --profile")
    known = {path.stem: path for folder in reversed(PROFILE_FOLDERS) for path in sorted(folder.glob("*.yaml"))}
    if name in known:
        return known[name]
    raise InputError(
        f"unknown profile {words(name)}{nearest(name, known)}; the profiles are {', '.join(sorted(known))}"
    )


def _expanded(name: str) -> Path | None:
    """The file that a path names, or None; a name may well be too long for one, or of nobody's home."""
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):
        return None


def _read(name: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a profile on top of those it extends."""
    path = _find(name)
    if path in seen:
        raise InputError(f"{path}: the profile extends itself through {' -> '.join(map(str, seen))}; break the circle")
    try:
        values = read_yaml(read_text(path)) or {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as YAML ({error}); mend the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a profile is a mapping of sections, not a {type(values).__name__}")
    base = values.pop("extends", None)
    values.setdefault("profile", path.stem)
    if base is None:
        return _lay({}, [values])
    if not isinstance(base, str):
        raise InputError(f"{path}: extends is {words(base)}; give the name or the path of a profile")
    sibling = _expanded(str(path.parent / f"{base}.yaml"))
    return _lay(_read(str(sibling or base), (*seen, path)), [values])


def _lay(base: dict[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay what one author gives over ``base``: steps or epochs replace either (R15), a number of folds those run."""
    replaced = {section: (LENGTHS, LENGTHS) for section in TRAININGS} | {"grid": (("n_folds",), ("folds",))}
    for section, (keys, gone) in replaced.items():
        if any(_given(layer, section, keys) for layer in layers) and isinstance(base.get(section), dict):
            base = base | {section: {key: value for key, value in base[section].items() if key not in gone}}
    return reduce(_merge, layers, base)


def _given(layer: Mapping[str, Any], section: str, keys: Sequence[str]) -> list[str]:
    """Which of some keys of a section a layer gives."""
    given = layer.get(section)
    return [key for key in keys if isinstance(given, Mapping) and given.get(key) is not None]


def overlaid(overrides: Iterable[str], later: Sequence[str]) -> list[str]:
    """Overrides of one author and on top of them another's, whose steps or epochs replace either (R15), as one list.

    >>> overlaid(["pretrain.steps=9"], ["pretrain.epochs=2"])
    ['pretrain.steps=9', 'pretrain.epochs=2', 'pretrain.steps=null']
    """
    layer = reduce(_merge, map(_parse_override, later), dict[str, Any]())
    gone: list[str] = []
    for section in TRAININGS:
        given = _given(layer, section, LENGTHS)
        gone += [f"{section}.{key}=null" for key in LENGTHS if given and key not in given]
    return [*overrides, *later, *gone]


def _merge(base: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``other`` over ``base``, section by section; mappings such as counts key by key, and {} empties one."""
    for key, value in other.items():
        if isinstance(value, Mapping) and value and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value
    return base


def _parse_override(item: str) -> dict[str, Any]:
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {words(item)}: write it as section.key=value, for example --set loss.alpha=0.1")
    try:
        value = read_value(text)
    except ValueError as error:
        raise InputError(f"--set {words(item)}: the value is not readable as YAML ({error})") from None
    parts = key.strip().split(".")
    if len(parts) > DEEPEST:
        raise InputError(f"--set {words(item)}: no setting lies so deep; write it as section.key=value")
    if parts[0] == "phantom":  # the one section below another that people set by hand
        parts = ["data", *parts]
    return reduce(lambda inner, part: {part: inner}, reversed(parts), value)


def _explain(error: ValidationError) -> str:
    """The first fault of a configuration as one sentence, with the nearest valid name for an unknown key."""
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")  # a misspelt key first
    where = words(".".join(str(part) for part in fault["loc"] if "[" not in str(part)), 200)  # no part of a type
    if fault["type"] == "extra_forbidden":
        names = _field_names(fault["loc"][:-1])
        return f"unknown key {where}{nearest(str(fault['loc'][-1])[:80], names)}; valid here: {', '.join(names)}"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where} is a section and needs keys below it, not {words(fault['input'])}"
    message = fault["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list, such as [1, 2]")
    if not fault["loc"]:
        return message
    return f"{where}: {message[:1].lower()}{message[1:]} (got {words(fault['input'])})"


def _field_names(loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the settings class at ``loc``: sections, or mappings from names to sections."""
    model: Any = Experiment
    for part in loc:
        mapping = typing.get_origin(model) is dict
        model = typing.get_args(model)[1] if mapping else model.model_fields[part].annotation
    return sorted(model.model_fields)


def nearest(name: str, valid: Iterable[str]) -> str:
    """What a misspelt name was perhaps meant to be, as a few words in brackets, or nothing."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def checked_task(config: Experiment, task: str) -> str:
    """The name of a collection to fine-tune on; an InputError where ``data.finetune`` does not have it."""
    known = config.data.finetune
    if task not in known:
        text = f"task {task!r}: is not in data.finetune{nearest(task, known)}, which has {', '.join(known) or 'none'}"
        raise InputError(f"{text}; choose one of these, or add it there")
    return task
