"""What the steps since the last record gave: averaged for metrics.jsonl, and watched for what is not finite."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mixcl.errors import InputError

MEND = "lower the learning rate or set run.precision=no, and look at these scans; what was saved before is kept"


class Steps:
    """Steps since the last record, or the ``state`` of a stopped run; only `means` and `check` wait for tensors."""

    def __init__(self, state: Iterable[dict[str, Any]] = ()) -> None:
        self.entries = [
            {
                **entry,
                "shared": True,
                "tensors": {name: torch.tensor(value) for name, value in entry["tensors"].items()},
            }
            for entry in state  # which every rank reads alike, whoever was stopped
        ]

    def add(self, number: int, samples: list[int], values: dict[str, Any], gradient: Tensor | None) -> None:
        """Note step ``number``: the samples of its batch, its terms and other ``values``, its gradient's norm."""
        tensors = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in values.items() if name not in tensors}
        watched = {} if gradient is None else {"the gradient's norm": gradient}
        entry = {"number": number, "samples": samples, "names": list(values), "tensors": tensors | watched}
        self.entries.append({**entry, "others": others})

    def share(self, over_ranks: Callable[[Tensor, str], Tensor]) -> None:
        """Put what all ranks had in the place of this one's terms: their mean or, of counts, their sum.

        ``over_ranks(tensor, "mean" or "sum")`` does it for one tensor.  What was shared before stays.
        """
        fresh = [entry for entry in self.entries if not entry.get("shared")]
        for name in fresh[-1]["tensors"] if fresh else ():
            values = [entry["tensors"][name] for entry in fresh]
            kind = "mean" if values[0].is_floating_point() else "sum"
            for entry, value in zip(fresh, over_ranks(torch.stack(values).double(), kind), strict=True):
                entry["tensors"][name] = value
        for entry in fresh:
            entry["shared"] = True

    def means(self) -> dict[str, Any]:
        """Mean of each term over the steps; of values given now and then, such as gradient norms, the last."""
        record: dict[str, Any] = {}
        for name in dict.fromkeys(name for entry in self.entries for name in entry["names"]):
            if name in self.entries[-1]["tensors"]:
                record[name] = self._column(name).mean(0).tolist()
            else:
                record[name] = [entry["others"][name] for entry in self.entries if name in entry["others"]][-1]
        return record

    def check(self, job: str, scans: Callable[[list[int]], str], saved: nn.Module | None = None) -> None:
        """Refuse to go on from terms, gradients or, of a network to be ``saved``, weights that are not finite."""
        names, steps = list(self.entries[-1]["tensors"]), len(self.entries)
        names = [name for name in names if all(name in entry["tensors"] for entry in self.entries)]
        columns = [self._column(name).isfinite().reshape(steps, -1).all(1) for name in names]
        finite = torch.stack(columns).cpu()  # [terms, steps]
        if not finite.all():
            step = int((~finite.all(0)).nonzero()[0])
            what, entry = names[int((~finite[:, step]).nonzero()[0])], self.entries[step]
            fault = f"{what} is not finite at step {entry['number']}"
        elif saved is not None and (bad := _not_finite(saved)):
            entry = self.entries[-1]
            fault = f"{bad} weights are not finite after step {entry['number']}"
        else:
            return
        raise InputError(f"{job}: {fault}, with scans {scans(entry['samples'])}; {MEND}")

    def state(self) -> list[dict[str, Any]]:
        """The steps as JSON takes them, to be kept in a checkpoint."""
        return [
            {**entry, "tensors": {name: value.double().tolist() for name, value in entry["tensors"].items()}}
            for entry in self.entries
        ]

    def _column(self, name: str) -> Tensor:
        """A term over the steps, float64 [steps, ...]."""
        device = self.entries[-1]["tensors"][name].device
        return torch.stack([entry["tensors"][name].double().to(device) for entry in self.entries])


def _not_finite(module: nn.Module) -> str:
    """How many weights are not finite, of how many; nothing where all are."""
    weights = [value for value in module.state_dict().values() if value.is_floating_point()]  # counters are finite
    if nn.utils.get_total_norm(weights, norm_type=math.inf).isfinite():
        return ""
    return f"{sum(not value.isfinite().all() for value in weights)} of {len(weights)}"


def gradient_norm(optimizer: torch.optim.Optimizer, scaler: object) -> Tensor | None:
    """Norm of the gradient of all weights, on their device; None where a scaler (fp16) may let it overflow."""
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return None if scaler else nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
