"""`edge4d.export`: the whole line, from a model to a gated artifact whose numbers have been checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.asking import Wishes
from edge4d.blocks.choice import BlockSpec
from edge4d.errors import UsageError
from edge4d.export_run import run_export
from edge4d.export_steps import AUTOTUNE_BUDGET, Clock, Stage, put_swapped
from edge4d.fixed_inputs import Fixes, fixes_text
from edge4d.replanning import MAX_ERROR
from edge4d.report import ExportReport

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["export"]


def export(
    model: nn.Module | torch.export.ExportedProgram | str | Path,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    output: str | Path | None = None,
    block: BlockSpec = "exact",
    block_options: Mapping[str, Any] | None = None,
    calib: Any = None,
    runtime: str | None = None,
    formulations: Sequence[str | tuple[str, str]] = (),
    max_weight_growth: float | None = None,
    max_activation_memory: int | None = None,
    max_error: float = MAX_ERROR,
    autotune: str | None = None,
    autotune_budget: float = AUTOTUNE_BUDGET,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    precision: str | None = None,
    keep_fp32: Sequence[str] = (),
    calibration: str = "minmax",
    calib_mean: Sequence[float] = (),
    calib_std: Sequence[float] = (),
    fp16_io: bool = False,
    normalize: Any = None,
    input_layout: Any = None,
    dynamic: str | None = None,
    opset: int = 18,
    simplify: bool = True,
    parity: bool = True,
    sets: int = 2,
    seed: int = 0,
    force: bool = False,
    profile: str | None = None,
    stage: Stage | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export a trained 3-D network as an ONNX graph of rank ≤ 4 and check it.

    Args:
        model: an `nn.Module` (left unchanged), an `ExportedProgram`, or the path of a model file.
        args: example inputs of a module in memory; shapes are fixed by them.
        kwargs: keyword inputs of a module in memory.
        output: the ``.onnx`` to write; beside the model's own file when None, as ``NAME.4d.onnx`` beside ``NAME.onnx``.
        block: ``exact`` keeps every number; a structure replaces the 3×3×3 layers; or a choice per layer, as in `swap`.
        block_options: of the structures, e.g. ``{"energy": 0.99}``.
        calib: clips that the structures are fitted on and the ranges of int8 drawn from: arrays, an ``.npz``, or a
            folder of arrays, frames or videos; see `edge4d.clips.load_clips`.
        runtime: what the artifact is meant for, a name of `edge4d.offers.RUNTIMES`; formulations that it handles
            badly are left out.
        formulations: ``"layer4.*=taps"``; which formulation layers get, where it fits.
        max_weight_growth: how many times its own weights a layer may get; Winograd's F(4, 3) doubles them.
        max_activation_memory: bytes that a formulation may need between a layer's input and its result.
        max_error: how far the network may stray from eager float32, relative to the range of each output; a plan that
            strays further is made again with milder formulations. Looked at with `parity` only.
        autotune: a runtime that is here; formulations are timed on it instead of predicted. Implies `runtime`.
        autotune_budget: seconds that this may take; what it has not come to is predicted.
        input_shapes: logical shapes for a model file that carries none.
        factory: ``package.module:callable`` that builds the module of a state_dict.
        trust_pickle: allow a file that runs code when it is read.
        submodule: the part of the network that is wanted, by its path, e.g. ``model.visual``.
        fix: values by input, which become constants of the graph: ``{"grid_thw": [[1, 16, 24]]}`` for code that
            reads such an input by value. A list (or tensor) becomes a tensor, anything else stays as it is.
        precision: ``fp32``, ``fp16`` or ``int8``; the latter needs `calib`, and leaves Winograd out. When None, the
            model's own types: float32, or float16 where its weights are. Given, a model of other types is first made
            float32.
        keep_fp32: patterns of layers or ONNX operators that stay in float32.
        calibration: how int8 ranges are drawn: ``minmax``, ``entropy`` or ``percentile``.
        calib_mean: what is taken from pictures and videos, whose values go from 0 to 1; one number, or one a channel.
        calib_std: what they are then divided by.
        fp16_io: inputs and outputs are float16 too.
        normalize: the graph takes uint8 frames and makes (frame / scale - mean) / std of them, by channel: a mapping
            with ``mean``, ``std`` and ``scale`` (255), a text ``"mean=0.43,0.39,0.37 std=0.22 scale=255"``, or a
            mapping of those by input name. `calib` then holds such frames too.
        input_layout: ``nhwc`` for frames with their channels last (N T H W C), or a mapping of it by input name.
        dynamic: ``batch`` leaves the first axis of the inputs open; see `edge4d.exporters.open_batch`.
        opset: ONNX operator set.
        simplify: run onnxsim.
        parity: run the artifact in ONNX Runtime against PyTorch, on `sets` random inputs; int8 on the first clips of
            `calib`.
        sets: how many random inputs.
        seed: of the random inputs.
        force: replace an existing output.
        profile: a device profile, by name or path, whose limits the artifact must keep too.
        stage: wraps each stage of the work, given its name; for progress.
        progress: told a line for each layer that is timed.

    Returns:
        A report; `.ok` is false when the gate has findings or the numbers differ. The files are written either way.

    Raises:
        UsageError: unknown block, profile, runtime, formulation or precision, existing output without `force`, inputs
            missing, clips that are missing, too few, or do not fit.
        LoadError: the model file cannot be read or must not be trusted.
        CaptureError: torch.export cannot capture the model, or the import of an ONNX file does not compute the same.
        LoweringError: the model holds operators without a way to rank 4.
        ExportError: the artifact cannot be written.
    """
    from edge4d.calibrating import read_clips
    from edge4d.clips import Pixels
    from edge4d.exporters.onnx import check_opset
    from edge4d.exporters.precision import Precision, check_tools
    from edge4d.files import refuse_existing
    from edge4d.sampling import Samples, check_clips
    from edge4d.subject import Subject
    from edge4d.validators.profile import load_profile

    types = Precision(precision or "fp32", tuple(keep_fp32), calibration, fp16_io)
    wishes = Wishes.of(
        block,
        block_options,
        runtime=runtime,
        formulations=formulations,
        max_weight_growth=max_weight_growth,
        max_activation_memory=max_activation_memory,
        precision=types.name,
        autotune=autotune,
        autotune_budget=autotune_budget,
        normalize=normalize,
        input_layout=input_layout,
        progress=progress,
    )
    choice, planner, asked = wishes.choice, wishes.planner, wishes.asked
    if not max_error > 0:
        raise UsageError(f"no network stays within an error of {max_error}", hint="give a number above 0, e.g. 1e-5")
    check_clips(choice, types, calib)
    check_tools(types)
    pixels = Pixels(tuple(calib_mean), tuple(calib_std))
    if asked.normalizes and (calib_mean or calib_std):
        raise UsageError(
            "--calib-mean, --calib-std: with --normalize the graph itself normalises, and clips are read as frames",
            hint="leave them out",
        )
    check_opset(opset)
    if dynamic not in (None, "batch"):
        raise UsageError(f"--dynamic {dynamic}: only the batch can be left open", hint="--dynamic batch")
    target = _target(model, output)
    refuse_existing(target, force)
    held = load_profile(profile) if profile is not None else None
    clock = Clock(stage)
    with clock("loading"):
        subject = Subject.of(
            model,
            args,
            kwargs,
            shapes=input_shapes,
            factory=factory,
            trust_pickle=trust_pickle,
            seed=seed,
            submodule=submodule,
            fix=fix,
        )
    samples = fitted_on = None
    if calib is not None:
        with clock("reading clips"):
            samples = Samples.of(calib, subject, pixels, asked)
            fitted_on = read_clips(samples.for_blocks) if not choice.exact else None
        subject.notes += samples.clips.notes if samples.clips is not None else []
    if parity and subject.imported:
        from edge4d.import_checking import check_import

        with clock("checking the import"):
            check_import(subject, seed)
    swapped = put_swapped(subject, choice, block, block_options, fitted_on, clock, measure=True, seed=seed)
    options = {
        "block": choice.label,
        **(block_options or {}),
        **(samples.to_dict() if samples is not None else {}),
        "dynamic": dynamic,
        "opset": opset,
        "simplify": simplify,
        "seed": seed,
        "factory": factory,
        **({"submodule": submodule} if submodule is not None else {}),
        **({"fix": fixes_text(fix)} if fix else {}),
        **planner.to_dict(),
        **({"autotune": autotune} if autotune is not None else {}),
        **({"max_error": max_error} if max_error != MAX_ERROR else {}),
        **types.to_dict(),
        "own_types": precision is None,
        **asked.to_dict(),
        **({"pixels": pixels.to_dict()} if samples is not None and (calib_mean or calib_std) else {}),
    }
    report = run_export(
        subject, target, options, planner, types, asked, samples, sets if parity else 0, clock, held, max_error
    )
    report.swap = swapped
    report.notes += wishes.said()
    return report


def _target(model: Any, output: str | Path | None) -> Path:
    """Where to write; what cannot work is said before the model is loaded."""
    from edge4d.files import refuse_folder

    if output is None:
        if not isinstance(model, str | Path):
            raise UsageError("export of a module in memory needs an output path", hint='write output="model.onnx"')
        path = Path(model)
        if path.is_dir():
            return path.resolve().with_name(f"{path.resolve().name}.onnx")
        return path.with_suffix(".4d.onnx" if path.suffix == ".onnx" else ".onnx")
    target = Path(output)
    if not target.name:
        raise UsageError(f"the output {str(output)!r} names no file", hint="write -o model.onnx")
    if target.suffix != ".onnx":
        raise UsageError(f"the output {target} is not named .onnx", hint=f"write -o {target.with_suffix('.onnx')}")
    if isinstance(model, str | Path) and target.exists() and target.samefile(model):
        raise UsageError(f"the output {target} is the model itself", hint="choose another name with -o")
    refuse_folder(target)
    return target
