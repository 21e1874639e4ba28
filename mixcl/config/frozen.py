"""What all settings have in common: frozen, no unknown key, numbers in their ranges, names that can be a folder's."""

import typing
from collections import Counter
from collections.abc import Iterable
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixcl.errors import InputError
from mixcl.files import checked_name

Fraction = typing.Annotated[float, Field(ge=0.0, le=1.0)]
Positive = typing.Annotated[float, Field(gt=0.0)]
NonNegative = typing.Annotated[float, Field(ge=0.0)]
Hounsfield = typing.Annotated[float, Field(ge=-(2**15), lt=2**15)]  # the store has 16 bits
Count = typing.Annotated[int, Field(ge=1, le=10**12)]
Seed = typing.Annotated[int, Field(ge=0, lt=2**32)]


def check_names(kind: str, names: Iterable[str]) -> None:
    """Refuse names that cannot be a folder's, in the way that pydantic understands."""
    try:
        for name in names:
            checked_name(kind, name)
    except InputError as error:
        raise ValueError(str(error)) from None


def check_once(kind: str, values: Iterable[object]) -> None:
    """Refuse what is listed twice, in the way that pydantic understands."""
    for value, number in Counter(values).items():
        if number > 1:
            raise ValueError(f"{kind} lists {value} twice; list it once")


class Frozen(BaseModel):
    """Base of all settings: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, given: object) -> object:
        """pydantic takes true for 1; ``steps: true`` is a slip."""
        if isinstance(given, dict):
            for name in _numeric(cls) & given.keys():
                if _holds_truth(given[name]):
                    words = str in _kinds(cls.model_fields[name].annotation)
                    quotes = "; YAML reads yes, no, on and off so: put such a name in quotes" if words else ""
                    raise ValueError(f"{name} takes numbers, not true or false{quotes}")
        return given


@cache
def _numeric(section: type[BaseModel]) -> frozenset[str]:
    """Names of the settings of a section that take numbers, and neither true nor false."""
    fields = section.model_fields.items()
    return frozenset(name for name, field in fields if {int, float} & _kinds(field.annotation))


def _holds_truth(value: object) -> bool:
    """Whether a value, or one in a list or mapping of it, is true or false."""
    inner = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(map(_holds_truth, inner))


def _kinds(annotation: object) -> set[object]:
    """The plain types that an annotation is made of; none where one of them is bool."""
    parts = typing.get_args(annotation)
    kinds: set[object] = set().union(*map(_kinds, parts)) if parts else {annotation}
    return set() if bool in kinds else kinds
