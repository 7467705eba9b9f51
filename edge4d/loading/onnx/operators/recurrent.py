"""LSTM, GRU and RNN over a sequence (T, N, features), in either direction or both.

What PyTorch has under the same name is called whole. A GRU whose reset gate works on the state before its product
(`linear_before_reset` 0, ONNX's default) is none of PyTorch's and is written out frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge4d.loading.onnx.node import Node, Unsupported
from edge4d.loading.onnx.registry import imports

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""For each pass over the sequence, whether it begins at the end."""

_USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where PyTorch's gates (i f g o; r z n) stand among ONNX's (i o f c; z r h)."""


@dataclass(frozen=True)
class _Recurrent:
    """What the attributes say.

    Attributes:
        op: operator.
        function: of PyTorch that runs a pass, given x, states, weights and the rest.
        passes: of `_DIRECTIONS`.
        hidden: features of a state, where it is said.
        before: whether a GRU's reset gate works before the product.
    """

    op: str
    function: Any
    passes: tuple[bool, ...]
    hidden: int
    before: bool

    @classmethod
    def of(cls, node: Node) -> _Recurrent:
        node.only("layout", 0, "sequences with the batch first are not imported")
        node.only("input_forget", 0, "input and forget gates that share their numbers are not imported")
        direction = node.text("direction", "forward")
        if direction not in _DIRECTIONS:
            raise Unsupported(f"direction={direction}", f"ONNX knows {', '.join(_DIRECTIONS)}")
        passes = _DIRECTIONS[direction]
        if node.has("clip"):
            raise Unsupported(f"clip={node.number('clip', 0)}: PyTorch's cells do not clip")
        for name in ("activation_alpha", "activation_beta"):
            if node.numbers(name):
                raise Unsupported(f"{name} is of activations that PyTorch's cells do not have")
        function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[node.op]
        named = tuple(node.texts("activations") or ()) or _USUAL[node.op] * len(passes)
        if node.op == "RNN" and named == ("Relu",) * len(passes):
            function = torch.rnn_relu
        elif named != _USUAL[node.op] * len(passes):
            raise Unsupported(f"activations={','.join(named)}: PyTorch's {node.op} has {', '.join(_USUAL[node.op])}")
        peepholes = node.constant(7)
        if node.given(7) and (peepholes is None or peepholes.any()):
            raise Unsupported("has peepholes (P), which PyTorch's LSTM has not")
        before = node.op == "GRU" and node.integer("linear_before_reset", 0) == 0
        return cls(node.op, function, passes, node.integer("hidden_size", 0), before)

    def check(self, x: torch.Tensor, r: torch.Tensor, lengths: Any) -> None:
        """What the inputs may not be, which their shapes tell."""
        if self.hidden and self.hidden != r.shape[-1]:
            raise Unsupported(f"hidden_size={self.hidden}, but its weights are for {r.shape[-1]}")
        if lengths is not None and (np.asarray(lengths) != x.shape[0]).any():
            said = ", ".join(map(str, np.unique(np.asarray(lengths))[:5]))
            raise Unsupported(
                f"sequence_lens of {said} in sequences of {x.shape[0]}: clips of several lengths are not imported",
                "give every clip its whole length, and leave sequence_lens out",
            )

    def weights(self, w: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None) -> list[torch.Tensor]:
        """As PyTorch keeps them: w, r and, where there are biases, two of these, for each pass in turn."""
        found: list[torch.Tensor] = []
        hidden = r.shape[-1]
        count = len(_ORDER[self.op])
        for i in range(len(self.passes)):
            parts = [w[i], r[i]]
            if b is not None:
                parts += [b[i, : count * hidden], b[i, count * hidden :]]
            found += [_ordered(part, hidden, _ORDER[self.op]) for part in parts]
        return found


@imports("LSTM", "GRU", "RNN", sizes=(4,))
def _recurrent(node: Node) -> Callable[..., Any]:
    told = _Recurrent.of(node)

    def run(
        x: torch.Tensor,
        w: torch.Tensor,
        r: torch.Tensor,
        b: torch.Tensor | None = None,
        lengths: Any = None,
        h: torch.Tensor | None = None,
        c: torch.Tensor | None = None,
        _zero_peepholes: torch.Tensor | None = None,
    ) -> Any:
        """x (T, N, features), states (passes, N, hidden) -> (T, passes, N, hidden), and the last states."""
        told.check(x, r, lengths)
        passes, hidden = len(told.passes), r.shape[-1]
        none = x.new_zeros(passes, x.shape[1], hidden)
        states = [none if state is None else state for state in ([h, c] if told.op == "LSTM" else [h])]
        if told.before:
            return _gru_before(x, w, r, b, states[0], told.passes)
        backwards = told.passes == (True,)
        given = x.flip(0) if backwards else x
        rest = (b is not None, 1, 0.0, False, passes == 2, False)
        first = states if told.op == "LSTM" else states[0]
        y, *last = told.function(given, first, told.weights(w, r, b), *rest)
        y = y.flip(0) if backwards else y
        return (y.reshape(*y.shape[:2], passes, hidden).transpose(1, 2), *last)

    return run


def _gru_before(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None,
    h: torch.Tensor,
    passes: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor]:
    """h' = (1 - z) · tanh(W x + R (r · h)) + z · h, with gates z, r; ONNX's default, one pass after the other."""
    hidden, results, last = r.shape[-1], [], []
    for i, backwards in enumerate(passes):
        inner = torch.matmul(x, w[i].t())
        inner = inner if b is None else inner + b[i, : 3 * hidden] + b[i, 3 * hidden :]
        state, frames = h[i], []
        gates_r, new_r = r[i, : 2 * hidden].t(), r[i, 2 * hidden :].t()
        for t in range(x.shape[0])[:: -1 if backwards else 1]:
            gates = torch.sigmoid(inner[t, :, : 2 * hidden] + torch.matmul(state, gates_r))
            update, reset = gates[:, :hidden], gates[:, hidden:]
            new = torch.tanh(inner[t, :, 2 * hidden :] + torch.matmul(reset * state, new_r))
            state = (1 - update) * new + update * state
            frames.append(state)
        results.append(torch.stack(frames[::-1] if backwards else frames))
        last.append(state)
    return torch.stack(results, 1), torch.stack(last)


def _ordered(part: torch.Tensor, hidden: int, order: Sequence[int]) -> torch.Tensor:
    """Gates of `hidden` rows each in another order."""
    if len(order) == 1:
        return part
    return torch.cat([part[at * hidden : (at + 1) * hidden] for at in order])
