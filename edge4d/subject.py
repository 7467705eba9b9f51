"""The model that a verb works on: from a file or from memory, ready to be captured and to be run as the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.fixed_inputs import Fixes, fix_inputs, part_of
from edge4d.intake import Intake
from edge4d.quiet import quiet

if TYPE_CHECKING:
    import torch

__all__ = ["Subject", "evaluation", "numpy_of", "torch_of"]


@dataclass
class Subject:
    """A model with its example inputs.

    Attributes:
        model: an `nn.Module` or an `ExportedProgram`.
        args, kwargs: example inputs; tensors in them fix the shapes.
        source: file name and SHA-256, or the class name of a module in memory.
        path: the file, None for a module in memory.
        notes: what the user should know about how the inputs were found.
        graph: what kind of file holds a graph without modules (so that no layer can be replaced); empty for a module.
        imported: whether the model is our import of an ONNX file, which ONNX Runtime can run itself.
        files: what was read, where `path` is a folder.
        intakes: how the arrays that `fill` is given have to be changed for each tensor, in order; empty for not at all.
        script: of a TorchScript file, what `model` was traced from; its trace holds for the shapes of `args` only.
    """

    model: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    source: str
    path: Path | None = None
    notes: list[str] = field(default_factory=list)
    graph: str = ""
    imported: bool = False
    files: tuple[Path, ...] = ()
    intakes: tuple[Intake | None, ...] = ()
    script: Any = None

    @classmethod
    def of(
        cls,
        model: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        shapes: Sequence[tuple[int, ...]] = (),
        factory: str | None = None,
        trust_pickle: bool = False,
        seed: int = 0,
        submodule: str | None = None,
        fix: Fixes | None = None,
    ) -> Subject:
        """Take a path, an `nn.Module` or an `ExportedProgram`; of it a part, and with inputs fixed.

        Raises:
            LoadError: the file cannot be read or must not be trusted.
            UsageError: no inputs are known and none can be inferred, or they do not fit; no such part or input.
        """
        if not isinstance(model, str | Path):
            if args is None and not kwargs:
                raise UsageError(
                    f"no example inputs for {type(model).__name__}",
                    hint="pass args=(clip,), a tensor of the right shape",
                )
            import torch

            from edge4d.structures import register_dataclasses

            register_dataclasses((args, kwargs))
            name = type(model).__name__
            model = fix_inputs(part_of(model, submodule) if submodule is not None else model, fix)
            program = isinstance(model, torch.export.ExportedProgram)
            graph = "an ExportedProgram" if program else ""
            return cls(model, tuple(args or ()), dict(kwargs or {}), name, graph=graph)
        from edge4d.loading import load_model, resolve_inputs, script_to_module

        loaded = load_model(model, factory=factory, trust_pickle=trust_pickle, submodule=submodule, fix=fix)
        notes = []
        if args is None:
            args, said = resolve_inputs(loaded, shapes, seed=seed)
            kwargs = kwargs or loaded.example_kwargs
            notes.append(f"input shapes: {said}")
        network: Any = loaded.program if loaded.program is not None else loaded.module
        script = network if loaded.kind == "torchscript" else None
        if script is not None:
            network = script_to_module(script, args)
        if loaded.kind == "onnx":
            from edge4d.loading.onnx import settle

            settle(network, args)
        source = f"{loaded.source.name} sha256:{loaded.source.sha256}"
        graph = {"torchscript": "a TorchScript archive", "exported-program": "a torch.export archive"}.get(
            loaded.kind, ""
        )
        return cls(
            network,
            tuple(args),
            dict(kwargs or {}),
            source,
            Path(model),
            notes,
            graph,
            loaded.kind == "onnx",
            loaded.files,
            script=script,
        )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Logical shapes of the tensors among its inputs, flat and in order."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors among its inputs, flat and in order."""
        import torch
        from torch.utils import _pytree as pytree

        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))

    def at(self, args: tuple[Any, ...]) -> Any:
        """The model for arguments of other shapes: that of a TorchScript file is traced anew.

        Raises:
            CaptureError: as of `script_to_module`.
        """
        if self.script is None or _sizes(args) == _sizes(self.args):
            return self.model
        from edge4d.loading import script_to_module

        return script_to_module(self.script, args)

    def reference(self, names: Sequence[str] | None = None, *, double: bool = False) -> Callable[..., Any]:
        """The 5-D model itself, on the tensors among its inputs as numpy arrays, flat and in order.

        Args:
            names: of its outputs, flat and in order; it then returns a mapping, else a list.
            double: run a float64 copy, the referee between two float32 results.
        """
        import torch
        from torch.utils import _pytree as pytree

        module = self.network(double=double)

        def run(*arrays: Any) -> Any:
            args, kwargs = self.fill(arrays, double=double)
            network = module
            if self.script is not None and _sizes(args) != _sizes(self.args):
                network = self.network(double=double, args=self.fill(arrays)[0])
            with evaluation(network), torch.inference_mode():
                results = pytree.tree_leaves(network(*args, **kwargs))
            outputs = [numpy_of(result) for result in results if isinstance(result, torch.Tensor)]
            return outputs if names is None else dict(zip(names, outputs, strict=True))

        return run

    def network(self, *, double: bool = False, args: tuple[Any, ...] | None = None) -> Any:
        """The 5-D model as a module that can be called, with these arguments; a float64 copy of it if `double`."""
        import torch

        model = self.model if args is None else self.at(args)
        module = model.module(check_guards=False) if isinstance(model, torch.export.ExportedProgram) else model
        if double:
            with quiet():  # an exported module's tree specs complain when copied
                module = copy.deepcopy(module).double()
        return module

    def fill(self, arrays: Sequence[Any], *, double: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and keyword arguments with these arrays in place of their tensors, flat and in order.

        Floats get the width of the tensor whose place they take (float64 if `double`): they may have been made for an
        artifact that takes float16. Frames made for one that normalises them are normalised here.
        """
        import torch
        from torch.utils import _pytree as pytree

        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        intakes = self.intakes or (None,) * len(places)
        for i, array, intake in zip(places, arrays, intakes, strict=True):
            tensor = torch_of(array if intake is None else intake.applied(array))
            if tensor.is_floating_point() and leaves[i].is_floating_point():
                tensor = tensor.to(torch.float64 if double else leaves[i].dtype)
            leaves[i] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return args, kwargs


def _sizes(args: tuple[Any, ...]) -> list[tuple[int, ...]]:
    """The shapes of the tensors among arguments."""
    from torch.utils import _pytree as pytree

    return [tuple(leaf.shape) for leaf in pytree.tree_leaves(args) if hasattr(leaf, "shape")]


@contextmanager
def evaluation(module: Any) -> Iterator[None]:
    """Evaluation mode for a while; each submodule's own mode is restored afterwards.

    Set as an attribute rather than by `eval()`, which an exported module refuses and a user may have overridden.
    """
    modes = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in modes:
            m.training = False
        yield
    finally:
        for m, training in modes:
            m.training = training


def numpy_of(tensor: Any) -> Any:
    """A tensor as an array of the same type; bfloat16, which numpy lacks, as that of ml_dtypes."""
    import torch

    plain = tensor.detach()
    if plain.dtype is not torch.bfloat16:
        return plain.numpy()
    import ml_dtypes

    return plain.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def torch_of(array: Any) -> Any:
    """The inverse of `numpy_of`, of any memory order."""
    import numpy as np
    import torch

    given = np.ascontiguousarray(array).reshape(np.shape(array))  # a scalar stays one
    if given.dtype.name != "bfloat16":
        return torch.from_numpy(given)
    return torch.from_numpy(given.view(np.int16)).view(torch.bfloat16)
