"""Forms of a network that another library makes for deployment, with the same weights and so the same numbers."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

__all__ = ["PEERS", "efficient_x3d", "peer_of"]

_RENAMED = (
    (r"^blocks\.0\.conv\.conv_t\.", "s1.pathway0_stem_conv_xy.kernel.conv."),  # its names are swapped: 1×3×3
    (r"^blocks\.0\.conv\.conv_xy\.", "s1.pathway0_stem_conv.kernel.conv."),
    (r"^blocks\.0\.norm\.", "s1.pathway0_stem_conv.kernel.bn."),
    (r"^blocks\.5\.pool\.pre_conv\.", "head.conv_5.kernel.conv."),
    (r"^blocks\.5\.pool\.pre_norm\.", "head.conv_5.kernel.bn."),
    (r"^blocks\.5\.pool\.post_conv\.", "head.lin_5.kernel.conv."),
    (r"^blocks\.5\.proj\.", "projection.model."),
    (r"^blocks\.(\d)\.res_blocks\.(\d+)\.branch1_conv\.", r"s{\1}.pathway0_res\2._res_proj.kernel.conv."),
    (r"^blocks\.(\d)\.res_blocks\.(\d+)\.branch1_norm\.", r"s{\1}.pathway0_res\2._res_proj.kernel.bn."),
    (r"^blocks\.(\d)\.res_blocks\.(\d+)\.branch2\.norm_b\.0\.", r"s{\1}.pathway0_res\2.layers.conv_1.kernel.bn."),
    (r"^blocks\.(\d)\.res_blocks\.(\d+)\.branch2\.norm_b\.1\.", r"s{\1}.pathway0_res\2.layers.se.se."),
    *(
        (
            rf"^blocks\.(\d)\.res_blocks\.(\d+)\.branch2\.{theirs}_{letter}\.",
            rf"s{{\1}}.pathway0_res\2.layers.conv_{number}.kernel.{ours}.",
        )
        for theirs, ours in (("conv", "conv"), ("norm", "bn"))
        for number, letter in enumerate("abc")
    ),
)
"""Names of pytorchvideo's X3D, and of its efficient form; stage `{1}` of the one is `s2` of the other."""


def efficient_x3d(network: nn.Module, args: tuple[Tensor, ...]) -> nn.Module:
    """pytorchvideo's efficient X3D in its deployable form for a mobile CPU, with the weights of its plain X3D.

    The two are one architecture. The efficient one has a batch norm more, on the shortcut of the first block, which
    becomes the identity here, and gives scores where the plain one ends in a softmax, which is added. Its deployable
    form has batch norms folded, a Conv2d for each temporal tap and frame, linear layers in squeeze-and-excitation, and
    values of five axes between them.

    Args:
        network: pytorchvideo's ``x3d_xs``, in evaluation mode; not changed.
        args: its clip (N, 3, T, H, W), the only size that the result takes.

    Raises:
        UsageError: the network has other weights than an X3D-XS.
    """
    import torch
    from pytorchvideo.accelerator.deployment.mobile_cpu.utils.model_conversion import convert_to_deployable_form
    from pytorchvideo.models.accelerator.mobile_cpu.efficient_x3d import create_x3d

    weights = {_renamed(name): value for name, value in network.state_dict().items()}
    if "projection.model.bias" not in weights:
        raise UsageError("the network has no head of an X3D-XS")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization, whose fusing of batch norms it uses, is deprecated
        classes = weights["projection.model.bias"].numel()
        efficient = create_x3d(expansion="XS", head_act="identity", num_classes=classes)
        extra = "s2.pathway0_res0._res_proj.kernel.bn."
        norm = efficient.get_submodule(extra.rstrip("."))
        norm.running_var.fill_(1 - norm.eps)
        weights |= {extra + name: value for name, value in norm.state_dict().items() if extra + name not in weights}
        try:
            efficient.load_state_dict(weights)
        except RuntimeError as error:
            raise UsageError(f"these are not the weights of an X3D-XS: {error}") from error
        with torch.no_grad():
            made = convert_to_deployable_form(efficient.eval(), *args)
    return torch.nn.Sequential(made, torch.nn.Softmax(dim=1))


PEERS: dict[str, Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]] = {"efficient_x3d": efficient_x3d}
"""By the name that cases.toml and the records use."""


def peer_of(name: str, network: nn.Module, args: tuple[Tensor, ...]) -> nn.Module:
    """The peer's form of a network.

    Raises:
        UsageError: there is no such peer, or it is not of such a network.
    """
    if name not in PEERS:
        raise UsageError(f"no peer {name}", hint=f"there are {', '.join(PEERS)}")
    return PEERS[name](network, args)


def _renamed(name: str) -> str:
    for pattern, other in _RENAMED:
        found, count = re.subn(pattern, other, name)
        if count:
            return re.sub(r"\{(\d)\}", lambda stage: str(int(stage[1]) + 1), found)
    raise UsageError(f"{name}: not a weight of pytorchvideo's X3D")
