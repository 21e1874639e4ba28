"""The one exception that a user meets."""

import re
from importlib.util import find_spec


class InputError(Exception):
    """Something the user gave is wrong; the message is one sentence that names it and says how to mend it.

    What a file has put into it moves no terminal: control characters are shown as Python spells them.  ``kind`` is a
    short name of the fault, for ``mixcl data check``.
    """

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], message))
        self.kind = kind


def needs(extra: str, *modules: str) -> None:
    """Raise `InputError` where a module that an extra of pyproject.toml brings is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise InputError(f"{module} is not installed; pip install 'mixcl[{extra}]'")
