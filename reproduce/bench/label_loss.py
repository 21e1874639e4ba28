"""The label loss, Eq. 6, against two straightforward versions: forward and backward pass, and what is kept.

``masked`` is log-sum-exp over masked copies of the similarities; ``exp`` takes exponentials, masks and
divides, which breaks at small temperatures.  All run on r pixels of each class in both patches.

    python reproduce/bench/label_loss.py --out label_loss.json
"""

from __future__ import annotations

from collections.abc import Callable

import sides
import torch
from torch import Tensor
from torch.nn import functional as F

from mixcl import losses


def main() -> None:
    parser = sides.arguments(__doc__, repeats=15)
    parser.add_argument("--classes", type=int, default=14, help="classes, the background among them")
    parser.add_argument("--budget", type=int, default=128, help="r, pixels a class and patch")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.1)
    args = sides.parsed(parser)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(args.classes).repeat_interleave(args.budget)
    emb = [torch.randn(len(labels), args.channels, generator=generator).requires_grad_() for _ in range(2)]

    def run(loss: Callable[..., Tensor]) -> Tensor:
        return loss(*emb, labels, labels, temperature=args.temperature)

    versions = {"ours": losses.label_consistency, "masked": masked, "exp": exponentials}
    exact = losses.label_consistency(*(x.detach().double() for x in emb), labels, labels, temperature=args.temperature)
    errors = {name: abs(run(loss).item() / exact.item() - 1) for name, loss in versions.items()}
    saved = {name: sides.saved_bytes(lambda loss=loss: run(loss), emb) for name, loss in versions.items()}
    backward = {name: lambda loss=loss: run(loss).backward() for name, loss in versions.items()}
    times = sides.seconds(backward, args.repeats)
    print(sides.medians(times))
    for name in versions:
        print(f"{name}: {saved[name] / 1e6:.2f} MB kept, relative error {errors[name]:.1e}")
    ratios = {"label_loss": sides.times_faster(times["masked"], times["ours"])}
    ratios["label_loss-exp"] = sides.times_faster(times["exp"], times["ours"])
    ratios["label_loss-memory"] = saved["masked"] / saved["ours"]
    settings = {name: getattr(args, name) for name in ("classes", "channels", "temperature")}
    settings["pixels"] = len(labels)
    sides.report("label_loss", args, ratios, **settings, seconds=times, saved_bytes=saved, errors=errors)


def masked(a: Tensor, b: Tensor, labels_a: Tensor, labels_b: Tensor, *, temperature: float) -> Tensor:
    """-log of the ratio, by masked log-sum-exp over all pairs."""
    s = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature
    positive, ignored = _masks(labels_a, labels_b)
    above = s.masked_fill(~positive, -torch.inf).flatten().logsumexp(0)
    return s.masked_fill(ignored, -torch.inf).flatten().logsumexp(0) - above


def exponentials(a: Tensor, b: Tensor, labels_a: Tensor, labels_b: Tensor, *, temperature: float) -> Tensor:
    """-log of the ratio, as Eq. 6 is written."""
    e = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature).exp()
    positive, ignored = _masks(labels_a, labels_b)
    return -torch.log((e * positive).sum() / (e * ~ignored).sum())


def _masks(labels_a: Tensor, labels_b: Tensor) -> tuple[Tensor, Tensor]:
    ignored = (labels_a[:, None] == 0) & (labels_b[None, :] == 0)
    return (labels_a[:, None] == labels_b[None, :]) & ~ignored, ignored


if __name__ == "__main__":
    main()
