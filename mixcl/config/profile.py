"""Settings from a YAML profile and ``--set key=value``.

A profile names only what differs from the defaults of :mod:`mixcl.config.settings`; it may build on another
profile with ``extends: NAME``.  Every unknown or ill-typed key is refused with the nearest valid name.
"""

import difflib
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mixcl.config.settings import LENGTHS, TRAININGS, Experiment
from mixcl.errors import InputError

PROFILE_FOLDERS = (
    Path(__file__).resolve().parents[2] / "reproduce" / "profiles",
    Path(__file__).resolve().parents[1] / "profiles",
)

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there, is eight times as fast


def load_profile(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read a profile by name (``smoke``, ``phantom``, ``paper``...) or path and apply ``section.key=value`` overrides.

    ``phantom.seed=1`` is short for ``data.phantom.seed=1``.  Values are read as YAML, so
    ``--set loss.level_weights=[1,1,1,0,0]`` and ``--set data.root=null`` work.

    Raises
    ------
    InputError
        Unknown profile, unreadable YAML, unknown key (with the nearest valid one) or a value of the wrong kind.

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

    Raises
    ------
    InputError
        An unknown key or a value of the wrong kind; ``where`` says whose, else the profile's name does.

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
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(f"{path}: no such profile file; check the path given to --profile")
        return path
    known = {path.stem: path for folder in reversed(PROFILE_FOLDERS) for path in sorted(folder.glob("*.yaml"))}
    if name in known:
        return known[name]
    raise InputError(f"unknown profile {name!r}{nearest(name, known)}; the profiles are {', '.join(sorted(known))}")


def _read(name: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a profile on top of those it extends."""
    path = _find(name)
    if path in seen:
        raise InputError(f"{path}: the profile extends itself through {' -> '.join(map(str, seen))}; break the circle")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), LOADER) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); mend the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a profile is a mapping of sections, not a {type(values).__name__}")
    base = values.pop("extends", None)
    merged: dict[str, Any] = {}
    if base is not None:
        sibling = path.parent / f"{base}.yaml"
        merged = _read(str(sibling) if sibling.is_file() else str(base), (*seen, path))
    values.setdefault("profile", path.stem)
    return _lay(merged, [values])


def _lay(base: dict[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay what one author gives over ``base``; steps or epochs in it take the place of either in ``base`` (R15)."""
    for section in TRAININGS:
        if any(_lengths(layer, section) for layer in layers) and isinstance(base.get(section), dict):
            base = base | {section: {key: value for key, value in base[section].items() if key not in LENGTHS}}
    return reduce(_merge, layers, base)


def _lengths(layer: Mapping[str, Any], section: str) -> list[str]:
    """Which of steps and epochs a layer gives to a training."""
    given = layer.get(section)
    return [key for key in LENGTHS if isinstance(given, Mapping) and given.get(key) is not None]


def overlaid(overrides: Iterable[str], later: Sequence[str]) -> list[str]:
    """Overrides of one author and on top of them another's, as one list of overrides.

    Of one author steps and epochs are a mistake (R15), of two the later one's stand.

    >>> overlaid(["pretrain.steps=9"], ["pretrain.epochs=2"])
    ['pretrain.steps=9', 'pretrain.epochs=2', 'pretrain.steps=null']
    """
    layer = reduce(_merge, map(_parse_override, later), dict[str, Any]())
    given = {section: _lengths(layer, section) for section in TRAININGS}
    gone = [
        f"{section}.{key}=null"
        for section, keys in given.items()
        if len(keys) == 1
        for key in LENGTHS
        if key not in keys
    ]
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
        raise InputError(f"--set {item!r}: write it as section.key=value, for example --set loss.alpha=0.1")
    try:
        value = _value(text.strip())
    except (yaml.YAMLError, ValueError) as error:  # a date that is none, for one
        text = " ".join(str(error).split())
        raise InputError(f"--set {item!r}: the value is not readable as YAML ({text})") from None
    parts = key.strip().split(".")
    if parts[0] == "phantom":  # the one section below another that people set by hand
        parts = ["data", *parts]
    return reduce(lambda inner, part: {part: inner}, reversed(parts), value)


def _value(text: str) -> Any:
    """What a value typed after ``=`` is: YAML where it begins like a list, a section or a quotation.

    Else it is one plain scalar to its end: in ``data.root=/data/run #2: new`` neither ``#`` nor ``: `` means anything.

    >>> _value("[1, 2]"), _value("0.1"), _value("null"), _value("/data/run #2: new")
    ([1, 2], 0.1, None, '/data/run #2: new')
    """
    if text[:1] in ("[", "{", '"', "'"):
        return yaml.load(text, LOADER)
    if text == "~":  # a folder, as in a shell
        return text
    loader = LOADER("")
    return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))


def _explain(error: ValidationError) -> str:
    """The first fault of a configuration as one sentence, with the nearest valid name for an unknown key."""
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")  # a misspelt key first
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        names = _field_names(fault["loc"][:-1])
        return f"unknown key {where!r}{nearest(str(fault['loc'][-1]), names)}; valid here: {', '.join(names)}"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where!r} is a section and needs keys below it, not {fault['input']!r}"
    message = fault["msg"].removeprefix("Value error, ")
    given = repr(fault["input"])
    given = given if len(given) <= 80 else f"{given[:77]}..."
    return f"{where!r}: {message[:1].lower()}{message[1:]} (got {given})"


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
