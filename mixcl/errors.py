"""The one exception that a user meets."""


class InputError(Exception):
    """Something the user gave is wrong; the message is one sentence that names it and says how to mend it.

    ``kind`` is a short name of the fault, for ``mixcl data check``.
    """

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind
