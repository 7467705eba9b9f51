"""The forms of one network that are timed, and the check that they compute the same numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import peer_of
from edge4d.errors import ExportError, UsageError
from edge4d.exporters.native import OPSET, write_native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from torch import Tensor, nn

    from benchmarks.cases import Case
    from edge4d.validators.parity import ParityReport

__all__ = [
    "EAGER",
    "EDGE4D",
    "EDGE4D_FOR",
    "LIMIT",
    "NATIVE",
    "built",
    "check",
    "clips_of",
    "make",
    "make_onnx",
    "network_of",
    "write_eager",
]

NATIVE, EDGE4D, EDGE4D_FOR, EAGER = "native-5d", "edge4d-4d", "edge4d-4d-for", "eager"
"""Native 5-D ONNX is the reference: eager PyTorch is easily beaten by any graph whose batch norms are folded. Of the
rank-4 graphs one is for all runtimes, the other, by ``--for``, for the one that it is timed on."""

LIMIT = 1e-4
"""Greatest error, relative to the range of the eager output, of a candidate whose time may be recorded."""

_SETS = 2  # clips that parity is checked on; others than those that the batch norms were set on


def network_of(case: Case) -> nn.Module:
    """The zoo's network in evaluation mode, float32, with uneven batch norms.

    Raises:
        UsageError: the zoo has no such network, or has it at another size.
    """
    from tests.zoo.models import find

    try:
        entry = find(case.model)
    except KeyError as error:
        raise UsageError(f"case {case.name}: {error.args[0]}") from error
    if entry.shapes[0] != (1, *case.shape):
        own = ", ".join("x".join(map(str, shape)) for shape in entry.shapes)
        raise UsageError(f"case {case.name}: shape {case.shape}, the zoo's {case.model} takes {own}")
    return entry.ready(0)


def clips_of(case: Case, seed: int) -> tuple[Tensor, ...]:
    """Clips for the network, N C T H W."""
    from tests.zoo.models import find

    return find(case.model).inputs(seed, batch=case.batch)


def make(
    network: nn.Module,
    args: tuple[Tensor, ...],
    folder: Path,
    runtime: str = "onnxruntime",
    peer: str = "",
    *,
    eager: bool = True,
) -> dict[str, Path]:
    """Write every candidate of one network.

    Args:
        network: in evaluation mode; all candidates are made of this very module.
        args: its inputs.
        folder: where the files go.
        runtime: what all but eager PyTorch run on, and what `EDGE4D_FOR` is made for; for another than ONNX Runtime
            the ONNX files are built, native ones too.
        peer: another library's form of the network, one of `benchmarks.peers.PEERS`, written as the native one is.
        eager: write the captured program, too.

    Returns:
        Candidate to file, the reference first.
    """
    files = make_onnx(network, args, folder, runtime)
    if peer:
        files[peer] = folder / "peer.onnx"
        write_native(peer_of(peer, network, args), args, files[peer])
    if runtime != "onnxruntime":
        files = {name: built(path, runtime) for name, path in files.items()}
    if eager:
        files[EAGER] = folder / "eager.pt2"
        write_eager(network, args, files[EAGER])
    return files


def make_onnx(
    network: nn.Module, args: tuple[Tensor, ...], folder: Path, runtime: str = "onnxruntime", **how: Any
) -> dict[str, Path]:
    """Write the ONNX candidates alone; `how` are more options of `edge4d.export`."""
    makers = {
        NATIVE: ("native_5d.onnx", write_native),
        EDGE4D: ("edge4d_4d.onnx", partial(_edge4d, **how)),
        EDGE4D_FOR: ("edge4d_4d_for.onnx", partial(_edge4d, runtime=runtime, **how)),
    }
    files = {}
    for name, (file, maker) in makers.items():
        files[name] = folder / file
        maker(network, args, files[name])
    return files


def built(path: Path, runtime: str) -> Path:
    """The engine beside an ONNX file; nobody holds the rank of a native one against a limit."""
    from edge4d import exporters

    exporter = exporters.get(runtime)
    engine = path.with_suffix(exporter.suffixes[0])
    exporter.build(path, engine, max_rank=None)
    return engine


def check(network: nn.Module, files: Mapping[str, Path], sets: Sequence[tuple[Tensor, ...]]) -> dict[str, ParityReport]:
    """Hold every candidate against the network itself, run eagerly, at `LIMIT`."""
    from edge4d.validators.parity import compare_callables
    from edge4d.validators.tolerances import Tolerance

    inputs = [[tensor.numpy() for tensor in args] for args in sets]
    reports = {}
    for name, path in files.items():
        candidate, close = _opened(path)
        try:
            reports[name] = compare_callables(_run(network), candidate, inputs, tolerance=Tolerance(LIMIT))
        finally:
            close()
    return reports


def parity_sets(clips: Callable[[int], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """The clips that parity is checked on, of a function from seeds to clips."""
    return [clips(seed) for seed in range(1, 1 + _SETS)]


def _edge4d(network: nn.Module, args: tuple[Tensor, ...], path: Path, **how: Any) -> None:
    from edge4d.exporting import export

    # Parity is checked here for every candidate on the same clips, and more strictly than a timing needs.
    report = export(network, args, output=path, opset=OPSET, parity=False, **how)
    if not report.ok:
        raise ExportError(f"the gate has findings on {path.name}:\n{report.gate.to_text()}")


def write_eager(network: nn.Module, args: tuple[Tensor, ...], path: Path) -> None:
    """The captured program: the same ATen calls as the module's, and a file that a worker reads without its classes."""
    import torch

    from edge4d.quiet import quiet

    with quiet():
        torch.export.save(torch.export.export(network, args, strict=False), path)


def _opened(path: Path) -> tuple[Any, Any]:
    if path.suffix != ".pt2":
        from edge4d.artifact import open as open_artifact

        opened = open_artifact(path)
        return opened, opened.close
    import torch

    return _run(torch.export.load(path).module()), lambda: None


def _run(module: Any) -> Any:
    import torch

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            results = module(*[torch.from_numpy(array) for array in arrays])
        return [tensor.numpy() for tensor in torch.utils._pytree.tree_leaves(results)]

    return run
