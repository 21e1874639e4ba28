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
        of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)
        of_system = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
        if not of_torch and not of_system:
            raise
        mend = "lower model.patch, the batch (pretrain.batch, finetune.batch, evaluate.windows) or model.hidden"
        raise InputError(f"too little memory; {mend}, or use a machine with more", "machine") from error
