"""Too little memory, in one sentence that says what to lower."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from mixcl.errors import InputError

WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""By which torch's errors, of a CPU and of a GPU, are known; they are RuntimeErrors."""
MEND = (
    "lower model.patch, the batch (pretrain.batch, finetune.batch, evaluate.windows) or model.hidden, or use a machine "
    "with more"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("CUDA out of memory. Tried")), out_of_memory(OSError())
    (True, True, False)
    """
    told = isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)
    return told or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn too little memory into one sentence of the kind ``machine``; also a decorator.

    Raises
    ------
    InputError
        There was too little.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"too little memory; {MEND}", "machine") from error
