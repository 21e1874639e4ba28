"""What all settings have in common: frozen, no unknown key, numbers in their ranges, names that can be a folder's."""

import typing
from collections import Counter
from collections.abc import Iterable

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
        for name, value in given.items() if isinstance(given, dict) else ():
            kinds = _kinds(cls.model_fields[name].annotation) if name in cls.model_fields else set()
            if {int, float} & kinds and bool not in kinds and _holds_truth(value):
                quotes = "; YAML reads yes, no, on and off so: put such a name in quotes" if str in kinds else ""
                raise ValueError(f"{name} takes numbers, not true or false{quotes}")
        return given


def _holds_truth(value: object) -> bool:
    """Whether a value, or one in a list or mapping of it, is true or false."""
    inner = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(map(_holds_truth, inner))


def _kinds(annotation: object) -> set[object]:
    """The plain types that an annotation is made of."""
    parts = typing.get_args(annotation)
    return set().union(*map(_kinds, parts)) if parts else {annotation}
