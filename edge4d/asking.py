"""What a user asks of an export, read and checked before the model is: by `export` and by its dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge4d.blocks.choice import BlockSpec, Choice
from edge4d.intake_options import Asked
from edge4d.planning import Planner

if TYPE_CHECKING:
    from edge4d.exporters.autotune import Autotuner

__all__ = ["Wishes"]


@dataclass(frozen=True)
class Wishes:
    """The options that decide what a network becomes.

    Attributes:
        choice: which block each layer gets.
        planner: chooses the formulations.
        tuner: the planner's own, when formulations are timed; None when they are predicted.
        asked: of the inputs, ``--normalize`` and ``--input-layout``.
    """

    choice: Choice
    planner: Planner
    tuner: Autotuner | None
    asked: Asked

    @classmethod
    def of(
        cls,
        block: BlockSpec,
        block_options: Mapping[str, Any] | None,
        *,
        runtime: str | None,
        formulations: Sequence[str | tuple[str, str]],
        max_weight_growth: float | None,
        max_activation_memory: int | None,
        precision: str,
        autotune: str | None,
        autotune_budget: float,
        normalize: Any,
        input_layout: Any,
        progress: Callable[[str], None] | None,
    ) -> Wishes:
        """Read them; arguments as `edge4d.export` has them, `precision` the name of one.

        Raises:
            UsageError: an unknown block, runtime or formulation, options that do not go together.
            RuntimeUnavailable: the runtime that formulations are to be timed on is not here.
        """
        from edge4d.exporters.autotune import planner_for

        choice = Choice.of(block)
        choice.check_options(block_options or {})
        planner = Planner.of(runtime or autotune, formulations, max_weight_growth, max_activation_memory, precision)
        planner, tuner = planner_for(planner, autotune, autotune_budget, progress)
        return cls(choice, planner, tuner, Asked.of(normalize, input_layout))

    def said(self) -> list[str]:
        """What a user should know about the timing of formulations, once it is over."""
        return [] if self.tuner is None else [self.tuner.note()]
