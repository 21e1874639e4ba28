"""Device, precision, ranks and speed: what the settings ``run`` mean on the machine at hand.

Settings left open are decided by the device that is found: a GPU computes in bf16, picks its fastest convolutions and
has worker processes; a CPU computes in float32 and repeats its bits.
"""

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from monai.networks.nets import UNETR
from torch import Tensor, nn

from mixcl.config.settings import ModelConfig, RunConfig, cores
from mixcl.errors import InputError

PATIENCE = timedelta(hours=2)  # of a rank for the others, which may wait for a twin or hash every scan
MOST_WORKERS = 8  # processes a GPU that cut patches, where the setting is left open
LONG = 86400.0  # seconds from which a training on a processor is told to be long
FAST_PLANE = 20480  # channels x depth x height from which torch's CPU takes its fast convolution for one sample, too
NO_BF16 = (
    "run.precision is bf16, which the AVX2 instructions in use here do not have: it takes many times as long as "
    "float32, which run.precision=no is (a training that has begun needs --restart for it)"
)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)
DETERMINISM: Any = torch.utils.deterministic


@contextmanager
def machine(run: RunConfig) -> Iterator[Accelerator]:
    """Device, precision and threads of a run, which are the process's own again afterwards.

    On a CPU the process goes on to keep the memory that it frees (:func:`keep_memory`).  Raises `InputError` where the
    device or precision that is asked for is not there.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device is cuda and no CUDA device is found; use --set run.device=auto")
    gpu = on_gpu(run)
    if not gpu and run.precision == "fp16":
        raise InputError("run.precision is fp16, which needs a CUDA device; use bf16 or no on a CPU")
    # accelerate keeps the settings of the first Accelerator of a process; a notebook may well change them.
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    before = (
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        DETERMINISM.fill_uninitialized_memory, torch.backends.cudnn.benchmark,
    )  # fmt: skip
    _set(run.threads, deterministic=not gpu, fill=False, benchmark=gpu)
    if not gpu:
        keep_memory()
    try:
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # ablations leave parts without a gradient
        patient = InitProcessGroupKwargs(timeout=PATIENCE)
        accelerator = Accelerator(cpu=not gpu, mixed_precision=precision(run), kwargs_handlers=[unused, patient])
        torch.set_num_threads(run.threads)  # which accelerate sets by itself with several processes
        emulated = not gpu and run.precision == "bf16" and torch.backends.cpu.get_cpu_capability() == "AVX2"
        if emulated and accelerator.is_main_process:
            print(f"mixcl: {NO_BF16}", file=sys.stderr)
        yield accelerator
    finally:
        _set(*before)
        release_memory()


def keep_memory() -> None:
    """Let this process keep the memory that tensors free, for the next ones.

    glibc maps every large block anew and gives it back when it is freed, so that the kernel fills each activation of
    each step with zeros first: a third of a CPU's time.  Another C library is left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def release_memory() -> None:
    """Give the system what :func:`keep_memory` kept and nothing uses."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def on_gpu(run: RunConfig) -> bool:
    """Whether a run computes on a CUDA device."""
    return run.device != "cpu" and torch.cuda.is_available()


def precision(run: RunConfig) -> str:
    """``no``, ``bf16`` or ``fp16``: what ``auto`` means on this machine.

    >>> precision(RunConfig(precision="fp16")), precision(RunConfig(device="cpu"))
    ('fp16', 'no')
    """
    if run.precision != "auto":
        return run.precision
    return "bf16" if on_gpu(run) and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def workers(run: RunConfig, ranks: int = 1) -> int:
    """Processes that cut patches for one of ``ranks`` processes: as set, or none on a CPU and one a core on a GPU."""
    if run.workers is not None:
        return run.workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))  # processes that share the cores
    return min(MOST_WORKERS, max(cores() // max(here, 1) - 1, 1)) if on_gpu(run) else 0


def faster(module: nn.Module, run: RunConfig) -> None:
    """Lay out and compile the UNETR inside ``module`` as ``run`` says, in place; names of weights stay."""
    if run.channels_last:
        module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if run.compile:
        import torch._functorch.config as functorch

        functorch.donated_buffer = False  # gradient norms of single terms keep the graph
        for net in (part for part in module.modules() if isinstance(part, UNETR)):
            for block in net.children():
                block.compile()


def forward(net: nn.Module, images: Tensor, model: ModelConfig) -> Tensor:
    """What a segmentation network makes of [B, 1, E, E, E].

    On a CPU with one thread, in float32, torch takes its fast convolution (oneDNN's) only for two samples or more, or
    where channels x depth x height pass `FAST_PLANE`; below that one sample takes twice as long as two, so that a lone
    one is run beside a copy of itself.  Samples do not see each other (instance norm).
    """
    slow = images.device.type == "cpu" and model.feature * model.patch**2 <= FAST_PLANE
    if slow and len(images) == 1 and not torch.is_autocast_enabled("cpu"):
        return net(images.repeat(2, 1, 1, 1, 1))[:1]
    return net(images)


def largest(accelerator: Accelerator) -> Callable[[int], int]:
    """A function that gives the largest of the ranks' numbers; it waits for the ranks, not for their devices."""
    if accelerator.num_processes == 1:
        return lambda number: number
    group = torch.distributed.new_group(backend="gloo")

    def over_ranks(number: int) -> int:
        numbers = torch.tensor(number)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, group=group)
        return int(numbers)

    return over_ranks


def agree(over_ranks: Callable[[int], int], first: int, folder: object) -> None:
    """Refuse ranks that begin at different steps, because ``folder`` is not one and the same for all of them."""
    if (over_ranks(first), -over_ranks(-first)) != (first, first):  # all ask both
        raise InputError(
            f"{folder}: the processes see different checkpoints there; put --out on a file system that all nodes share"
        )


def slow(run: RunConfig, seconds: float, steps: int) -> str:
    """A sentence where ``steps`` of ``seconds`` each take more than `LONG` seconds on a processor, or nothing."""
    if on_gpu(run) or seconds * steps < LONG:
        return ""
    return (
        f"a step takes {seconds:.0f} s on this processor, the {steps:,} left about {seconds * steps / LONG:.0f} days; "
        "what is done is kept, a GPU or fewer epochs take less, and --profile phantom takes minutes"
    )


def peak_gb(device: torch.device) -> float:
    """The most memory that this process has held: of the GPU, or of the machine."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def _set(threads: int, deterministic: bool, fill: bool, benchmark: bool) -> None:
    """Threads, deterministic, whether new memory is filled, whether cuDNN tries its convolutions."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    DETERMINISM.fill_uninitialized_memory = fill
    torch.backends.cudnn.benchmark = benchmark
