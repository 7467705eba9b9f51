"""What a captured graph does besides computing: calls that `torch.export` ties together, and writes into inputs.

Of torch's own there is one such call, the check behind a matrix decomposition that raises where the matrix has none. It
gives no number and is left out, so that what is refused is the decomposition itself, by its name, layer and line.
"""

from __future__ import annotations

import operator
from collections.abc import Collection

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from edge4d.errors import CaptureError
from edge4d.torch_private import checks_of_decompositions, tied_call

__all__ = ["without_checks", "without_writes"]


def without_checks(program: ExportedProgram) -> tuple[str, ...]:
    """Take the checks, and the tokens that tie them, out of a program's graph.

    Args:
        program: of this capture alone; its graph is changed in place, its signature is not.

    Returns:
        The names of the placeholders and results in its signature that are tokens, which the graph no longer has.

    Raises:
        CaptureError: it does something else besides computing.
    """
    graph, signature = program.graph, program.graph_signature
    tokens = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.TOKEN]
    results = [spec.arg.name for spec in signature.output_specs if spec.kind is OutputKind.TOKEN]
    if not tokens:
        return ()
    checks, tied = checks_of_decompositions(), tied_call()
    for node in list(graph.nodes):
        if node.target is not tied:
            continue
        token, op = node.args[:2]
        if op not in checks:
            raise CaptureError(
                f"the model does something besides computing its results, which no graph can carry: {op}",
                hint="take it out of forward, or call it outside of the model",
            )
        for user in list(node.users):
            if user.target is operator.getitem and user.args[1] == 0:
                user.replace_all_uses_with(token)
                graph.erase_node(user)
        graph.erase_node(node)
    output = graph.output_node()
    held = set(tokens)
    output.args = (tuple(one for one in output.args[0] if not (isinstance(one, fx.Node) and one.name in held)),)
    for node in [node for node in graph.nodes if node.op == "placeholder" and node.name in held]:
        graph.erase_node(node)
    return (*tokens, *results)


def without_writes(program: ExportedProgram, tokens: Collection[str]) -> None:
    """Take what the model writes into its own inputs out of the results: no graph changes what it is given.

    What the model computes from the changed inputs, and gives back of them, is as it was.

    Args:
        program: of this capture alone; its graph is changed in place, its signature is not.
        tokens: of `without_checks`, which the results no longer hold.
    """
    output = program.graph.output_node()
    specs = [
        s for s in program.graph_signature.output_specs if s.kind is not OutputKind.TOKEN or s.arg.name not in tokens
    ]
    results = zip(output.args[0], specs, strict=True)
    output.args = (tuple(one for one, spec in results if spec.kind is not OutputKind.USER_INPUT_MUTATION),)
