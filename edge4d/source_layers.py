"""The outputs of a PyTorch model's own layers, as it runs: what a graph's layers are held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from edge4d.subject import numpy_of

if TYPE_CHECKING:
    import numpy as np

    from edge4d.subject import Subject

__all__ = ["layer_names", "source_layers"]


def source_layers(
    subject: Subject, wanted: Collection[str] | None = None, *, double: bool = False
) -> Callable[..., dict[str, np.ndarray]]:
    """Run the 5-D model and keep what its layers return.

    An `nn.Module` is watched through forward hooks. An `ExportedProgram` has no modules left; its graph is interpreted,
    and a layer's output is the one value computed in it that is used outside.

    Args:
        subject: the model.
        wanted: names of layers, ``PATH`` or ``PATH@1`` for the second call of a module; all when None.
        double: run a float64 copy.

    Returns:
        A function of the tensors among the model's inputs, as numpy arrays, flat and in order. It returns logical
        arrays by layer, in the order in which the layers finish; layers that return no single tensor are left out.
    """
    import torch

    module = subject.network(double=double)
    program = isinstance(subject.model, torch.export.ExportedProgram)

    def run(*arrays: Any) -> dict[str, np.ndarray]:
        args, kwargs = subject.fill(arrays, double=double)
        return (_interpreted if program else _hooked)(module, args, kwargs, wanted)

    return run


def layer_names(subject: Subject) -> tuple[str, ...]:
    """The layers that the model has, whether they run or not; for messages."""
    import torch

    if isinstance(subject.model, torch.export.ExportedProgram):
        from edge4d.lowering.boundaries import Marks, mark_layers

        graph = subject.network().graph
        mark_layers(graph)
        return tuple(name for node in graph.nodes for name in Marks(node).layers)
    return tuple(name for name, _ in subject.model.named_modules() if name)


def _hooked(
    module: Any, args: Sequence[Any], kwargs: dict[str, Any], wanted: Collection[str] | None
) -> dict[str, np.ndarray]:
    import torch
    from torch.utils import _pytree as pytree

    from edge4d.subject import evaluation

    kept: dict[str, np.ndarray] = {}
    calls: Counter[str] = Counter()
    names = {child: name for name, child in module.named_modules() if name}

    def hook(child: Any, _: Any, result: Any) -> None:
        path = names[child]
        name = f"{path}@{calls[path]}" if calls[path] else path
        calls[path] += 1
        leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if len(leaves) == 1 and (wanted is None or name in wanted):
            kept[name] = numpy_of(leaves[0].clone())  # what follows may work in place

    handles = [child.register_forward_hook(hook) for child in names]
    try:
        with evaluation(module), torch.inference_mode():
            module(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _interpreted(
    module: Any, args: Sequence[Any], kwargs: dict[str, Any], wanted: Collection[str] | None
) -> dict[str, np.ndarray]:
    import torch
    from torch import fx
    from torch.utils import _pytree as pytree

    from edge4d.lowering.boundaries import Marks, mark_layers

    mark_layers(module.graph)
    kept: dict[str, np.ndarray] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            for name in Marks(n).layers:
                if isinstance(result, torch.Tensor) and (wanted is None or name in wanted):
                    kept[name] = numpy_of(result.clone())  # what follows may work in place
            return result

    with torch.inference_mode():
        Watch(module).run(*pytree.tree_leaves((tuple(args), kwargs)), enable_io_processing=False)
    return kept
