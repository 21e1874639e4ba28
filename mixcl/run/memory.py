"""Too little memory, in one sentence that says what to lower."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from mixcl.errors import InputError

WORDS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""By which torch's errors, of a CPU and of a GPU, are known; they are RuntimeErrors."""


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn too little memory into an InputError of the kind ``machine``; also a decorator."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not too_little(error):
            raise
        mend = "lower model.patch, the batch (pretrain.batch, finetune.batch, evaluate.windows) or model.hidden"
        raise InputError(f"too little memory; {mend}, or use a machine with more", "machine") from error


def too_little(error: BaseException) -> bool:
    """Whether an error, of torch or of the system, tells of too little memory."""
    of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)
    return of_torch or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
