"""R16: what of a pre-trained network goes to fine-tuning and to a stock MONAI UNETR."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from monai.networks.nets import UNETR
from torch import Tensor, nn

from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.model import select
from mixcl.run.checkpoint import read_start


def unetr_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The UNETR's part of the weights of a pre-training run, or of an exported encoder, under UNETR's own keys."""
    inner = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    return inner or dict(state)


class Handover(NamedTuple):
    """What a hand-over did: names of the weights that were ``loaded`` and of those that stayed ``fresh``."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        parts = sorted({name.split(".")[0] for name in self.fresh})
        return f"{len(self.loaded)} weights loaded, {len(self.fresh)} fresh ({', '.join(parts) or 'none'})"


def hand_over(
    weights: Mapping[str, Tensor],
    target: UNETR,
    *,
    transfer: Literal["encoder", "vit", "all"] = "encoder",
    source: str = "the pre-trained weights",
) -> Handover:
    """Copy pre-trained weights into a UNETR, all that ``transfer`` names or none (R16).

    ``weights`` have a UNETR's keys, as :meth:`MixCL.encoder_state_dict` gives them; what ``target`` has beside those
    stays.  ``transfer`` is ``vit``, ``encoder`` (ViT and encoder1..4) or ``all`` (with the decoder, without the output
    layer).  InputError names the ``source`` where one of its weights is missing, has another shape, or no finite
    floating-point numbers.
    """
    own = target.state_dict()
    wanted = select(own, transfer)
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of the {len(wanted)} weights of transfer={transfer!r} are missing, "
            f"first {missing[0]}; give an encoder written by 'mixcl export' or a pre-training run"
        )
    if extra := [name for name in select(weights, transfer) if name not in own and "cross_attn" not in name]:
        text = f"{len(extra)} weights of transfer={transfer!r} have no place in this network, first {extra[0]}"
        raise InputError(f"{source}: {text}; give those of a UNETR as this one is")
    whole = [name for name in wanted if not weights[name].is_floating_point()]
    if whole:
        text = f"{len(whole)} of {len(wanted)} weights are no floating-point numbers, first {whole[0]}"
        raise InputError(f"{source}: {text} with {weights[whole[0]].dtype}; give the weights as they were trained")
    other = [name for name, value in wanted.items() if weights[name].shape != value.shape]
    if other:
        name = other[0]
        raise InputError(
            f"{source}: {len(other)} of {len(wanted)} weights have another shape, first {name} with "
            f"{tuple(weights[name].shape)} for {tuple(own[name].shape)}; use the model settings of the pre-training"
        )
    if bad := [name for name in wanted if not weights[name].isfinite().all()]:
        text = f"{len(bad)} of {len(wanted)} weights are not finite numbers, first {bad[0]}"
        raise InputError(f"{source}: {text}; give the weights of another run")
    target.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return Handover(tuple(wanted), tuple(name for name in own if name not in wanted))


def hand_over_from(
    init: Path | None, net: UNETR, config: Experiment, task: str, data: str
) -> tuple[str, str, dict[str, Any]]:
    """Put the weights of ``init`` into a network that is trained on a task, whose scans have the fingerprint ``data``.

    What was handed over, in words, the weights' id, and what they say of themselves; None hands nothing over.
    """
    if init is None:
        return "none: trained from scratch", "none", {}
    weights, source = read_start(init, task, data)
    if (heads := source.get("model", {}).get("heads", config.model.heads)) != config.model.heads:  # no shape tells
        text = f"was trained with model.heads = {heads}, not {config.model.heads}"
        raise InputError(f"{init}: {text}; use the model settings of the pre-training")
    transfer = config.finetune.transfer
    report = hand_over(unetr_weights(weights), net, transfer=transfer, source=str(init))
    return f"{transfer}: {report}", source["id"], source


def freeze(net: UNETR) -> None:
    """Keep the encoder theta as it is; the decoder and the output layer are trained."""
    for parameter in select(dict(net.named_parameters()), "encoder").values():
        parameter.requires_grad_(False)


def parameter_groups(module: nn.Module, encoder_rate: float = 1.0) -> list[dict[str, Any]]:
    """The weights that are trained, as an optimiser takes them: ``rate`` is 1, that of the encoder its own."""
    named = dict(module.named_parameters())
    encoder, groups = select(named, "encoder"), dict[float, list[nn.Parameter]]()
    for name, parameter in named.items():
        if parameter.requires_grad:
            groups.setdefault(encoder_rate if name in encoder else 1.0, []).append(parameter)
    return [{"params": parameters, "rate": rate} for rate, parameters in groups.items()]
