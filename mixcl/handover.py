"""R16: what of a pre-trained network goes to fine-tuning, to a file, and to a stock MONAI UNETR."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from monai.networks.nets import UNETR
from torch import Tensor, nn

from mixcl.errors import InputError
from mixcl.model import TRANSFER, select
from mixcl.run import checkpoint
from mixcl.run.checkpoint import weights_id


def unetr_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The UNETR's part of the weights of a pre-training run, or of an exported encoder, under UNETR's own keys."""
    inner = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    return inner or dict(state)


def export_encoder(run: Path, to: Path, transfer: str = "encoder") -> str:
    """Write what ``transfer`` names of a finished pre-training run as one safetensors file for MONAI's UNETR (R16).

    Returns
    -------
    str
        The lines of Python that load it.

    Raises
    ------
    InputError
        The run is not finished, ``transfer`` is unknown, or ``to`` is no .safetensors file.
    """
    if transfer not in TRANSFER:
        raise InputError(f"--transfer {transfer!r}: choose one of {', '.join(TRANSFER)}")
    if to.suffix != ".safetensors":
        raise InputError(f"{to}: name the file .safetensors")
    weights, description = checkpoint.read_weights(run)
    model = description.get("model")
    if not model:
        raise InputError(f"{run}: not a pre-training run of mixcl; give the folder of one")
    chosen = select(unetr_weights(weights), transfer)
    about = {**description, "of": description["id"], "id": weights_id(chosen), "transfer": transfer}
    checkpoint.write_weights(to, chosen, about)
    return (
        "from monai.networks.nets import UNETR\n"
        "from safetensors.torch import load_file\n"
        f"net = UNETR(in_channels=1, out_channels=YOUR_CLASSES, img_size=({model['patch']},) * 3, "
        f"feature_size={model['feature']}, hidden_size={model['hidden']}, mlp_dim={model['mlp']}, "
        f"num_heads={model['heads']})\n"
        f"net.load_state_dict(load_file({str(to)!r}), strict=False)"
    )


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

    Parameters
    ----------
    weights
        State dict with a UNETR's keys, as :meth:`MixCL.encoder_state_dict` gives it.
    target
        Any UNETR; its other weights stay as they are.
    transfer
        ``vit``, ``encoder`` (ViT and encoder1..4) or ``all`` (with the decoder, without the output layer).
    source
        Named in the message when something is wrong.

    Raises
    ------
    InputError
        A weight that ``transfer`` names is missing from ``weights``, has another shape or is not finite.
    """
    own = target.state_dict()
    wanted = select(own, transfer)
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of the {len(wanted)} weights of transfer={transfer!r} are missing, "
            f"first {missing[0]}; give an encoder written by 'mixcl export' or a pre-training run"
        )
    other = [name for name, value in wanted.items() if weights[name].shape != value.shape]
    if other:
        name = other[0]
        raise InputError(
            f"{source}: {len(other)} of {len(wanted)} weights have another shape, first {name} with "
            f"{tuple(weights[name].shape)} for {tuple(own[name].shape)}; use the model settings of the pre-training"
        )
    if bad := [name for name in wanted if not weights[name].is_floating_point() or not weights[name].isfinite().all()]:
        text = f"{len(bad)} of {len(wanted)} weights are not finite numbers, first {bad[0]}"
        raise InputError(f"{source}: {text}; give the weights of another run")
    target.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return Handover(tuple(wanted), tuple(name for name in own if name not in wanted))


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
