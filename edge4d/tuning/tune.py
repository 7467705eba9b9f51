"""`edge4d.tune`: a network with the paper's structures learns to give what the original gave."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edge4d.blocks.choice import BlockSpec, Choice
from edge4d.data.opening import open_source
from edge4d.data.source import ClipSpec, ClipUnreadable, Part, Source, View
from edge4d.errors import UsageError
from edge4d.files import refuse_existing, refuse_folder, staged
from edge4d.fixed_inputs import Fixes, fixes_text
from edge4d.quiet import quiet
from edge4d.recipe import recipe_bytes, recipe_path
from edge4d.subject import Subject, evaluation
from edge4d.swapping import swap_with_report
from edge4d.tuning.checkpoints import check_space, checkpoint_path
from edge4d.tuning.options import TuneOptions
from edge4d.tuning.processes import Processes, joined
from edge4d.tuning.report import TuneReport
from edge4d.tuning.trainer import Told, Trainer

__all__ = ["clip_spec", "tune"]

Stage = Callable[[str], AbstractContextManager[None]]

_FITTED_ON = 32  # clips of the training part, for the least-squares fit before training
_COPIES = 8  # of the weights, in a checkpoint being replaced, its successor and the result


def tune(
    model: nn.Module | str | Path,
    args: tuple[Any, ...] | None = None,
    *,
    data: str | Path,
    output: str | Path,
    block: BlockSpec = "proposed-add",
    block_options: Mapping[str, Any] | None = None,
    val: str | Path | None = None,
    split: Path | None = None,
    labels: bool | None = None,
    options: TuneOptions | None = None,
    video: Mapping[str, Any] | None = None,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    device: str | None = None,
    resume: bool = False,
    force: bool = False,
    stage: Stage | None = None,
    told: Told | None = None,
) -> TuneReport:
    """Replace Conv3d layers, fit them, and let the network learn from the original; write the best one.

    Under ``torchrun`` every process calls this; they share the work, and the first one writes.

    Args:
        model: an `nn.Module` of one clip (left unchanged), or the path of a model file that is one.
        args: an example clip of a module in memory, ``(clip,)`` with (N, C, T, H, W).
        data: clips to learn from, see `edge4d.data.open_source`.
        output: the ``.pt2`` to write, a `torch.export` archive of the tuned network; a JSON recipe lies beside it.
        block: as in `edge4d.swap`.
        block_options: of the structures.
        val: clips to measure on; a share of `data` is held out when None.
        split: a split file of UCF-101 for `data`.
        labels: learn from labels too; None does so where there are some, False from the original alone.
        options: of the training.
        video: fields of `ClipSpec`: how videos become clips.
        input_shapes: logical shape of the clip, for a model file that carries none.
        factory, trust_pickle, submodule, fix: as in `edge4d.export`; the tuned network has no fixed inputs any more.
        device: ``cpu`` or ``cuda``; a GPU where there is one when None.
        resume: go on with an unfinished run.
        force: replace an existing output, and begin anew.
        stage: wraps each stage, given its name.
        told: hears how far the training is.

    Raises:
        UsageError: wrong options, data that do not fit the network, an existing output or unfinished run.
        LoadError: the model file cannot be read or must not be trusted.
        Diverged: the loss is no longer a number.
        ExportError: the output cannot be written.
    """
    options = options or TuneOptions()
    target = Path(output)
    if target.suffix != ".pt2":
        raise UsageError(f"the output {target} is not named .pt2", hint=f"write -o {target.with_suffix('.pt2')}")
    choice = Choice.of(block)
    choice.check_options(block_options or {})
    if choice.exact:
        raise UsageError(
            "--block exact changes no number, so there is nothing to tune", hint="e.g. --block proposed-add"
        )
    refuse_folder(target)
    refuse_existing(target, force or resume)
    _check_unfinished(target, resume=resume, force=force)
    staging: Stage = stage or (lambda _name: nullcontext())
    with joined(device) as processes:
        _check_batch(options, processes)
        with staging("loading"):
            subject = Subject.of(
                model,
                args,
                shapes=input_shapes,
                factory=factory,
                trust_pickle=trust_pickle,
                submodule=submodule,
                fix=fix,
            )
            if subject.graph:
                raise UsageError(
                    f"{subject.source} is {subject.graph}, a graph without the nn.Conv3d modules that a block replaces",
                    hint="pass the nn.Module itself, or a state_dict with --factory package.module:callable",
                )
            spec = clip_spec(subject, video)
            if fix:
                _check_writable(subject)
            train, held_out = _sources(data, val, split, spec, options)
        classes = _class_count(subject)
        used = _use_labels(labels, train, classes)
        options = replace(options, weights=replace(options.weights, labels=_label_weight(options, used)))
        with staging("swapping"):
            student, swapped = swap_with_report(
                subject.model, block, args=subject.args, calib=_fitting_clips(train), **(block_options or {})
            )
        check_space(target, _COPIES * sum(p.numel() * p.element_size() for p in student.parameters()))
        teacher = copy.deepcopy(subject.model)
        trainer = Trainer(
            teacher,
            student,
            tuple(row.layer for row in swapped.replaced),
            train,
            held_out,
            options,
            processes,
            checkpoint_path(target),
            told if processes.first else None,
        )
        identity = {
            **options.identity,
            "block": choice.label,
            "block_options": dict(block_options or {}),
            **_asked(submodule, fix),
            "source": subject.source,
            "data": str(data),
            "clips": len(train),
        }
        if resume:
            trainer.resume(identity)
        with staging("training"):
            trainer.run(identity)
        notes = [*subject.notes, *_notes(trainer)]
        report = TuneReport(
            path=target,
            block=choice.label,
            source=subject.source,
            clips=(len(train), len(held_out)),
            teacher=trainer.teacher_accuracy,
            history=tuple(trainer.history),
            best=trainer.kept,
            steps=trainer.step,
            ended=trainer.ended,
            seconds=trainer.seconds,
            skipped=(*train.skipped, *trainer.failed.items()),
            swap=swapped,
            notes=notes,
        )
        if processes.first:
            with staging("writing"):
                _write(target, student, subject, report, options, _asked(submodule, fix))
            trainer.checkpoint.unlink(missing_ok=True)
        return report


def clip_spec(subject: Subject, video: Mapping[str, Any] | None = None) -> ClipSpec:
    """What the network takes, from its example input.

    Raises:
        UsageError: it takes anything else than one clip (N, C, T, H, W).
    """
    tensors = [x for x in pytree.tree_leaves((subject.args, subject.kwargs)) if isinstance(x, Tensor)]
    if len(tensors) != 1 or tensors[0].dim() != 5:
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)
        raise UsageError(
            f"{subject.source} takes {len(tensors)} inputs ({shapes}), expected one clip (N C T H W)",
            hint="wrap the network in one that takes a single clip and makes the other inputs of it",
        )
    _, c, t, h, w = tensors[0].shape
    return ClipSpec(shape=(c, t, h, w), **(video or {}))


def _check_unfinished(target: Path, *, resume: bool, force: bool) -> None:
    there = checkpoint_path(target).exists()
    if resume and not there:
        raise UsageError(f"nothing to resume: there is no {checkpoint_path(target)}", hint="leave --resume out")
    if there and not resume and not force:
        raise UsageError(
            f"{checkpoint_path(target)} is an unfinished run",
            hint="add --resume to go on with it, or --force to begin anew",
        )


def _check_batch(options: TuneOptions, processes: Processes) -> None:
    parts = processes.world * options.accumulate
    if options.batch % parts:
        raise UsageError(
            f"a batch of {options.batch} cannot be shared by {processes.world} processes in {options.accumulate} parts",
            hint=f"give --batch a multiple of {parts}",
        )


def _sources(
    data: str | Path, val: str | Path | None, split: Path | None, spec: ClipSpec, options: TuneOptions
) -> tuple[Source, Source]:
    """(learned from, held out)."""
    source = open_source(data, spec, split)
    if source.classes is not None and len(source.classes) < 2:
        raise UsageError(
            f"--data {data}: all clips are of one class, {source.classes[0]}", hint="each subfolder is a class"
        )
    if val is not None:
        held_out = open_source(val, spec)
        if source.classes is not None and held_out.classes is not None and held_out.classes != source.classes:
            differing = sorted(set(held_out.classes) ^ set(source.classes)) or ["their order"]
            raise UsageError(
                f"--val {val}: its classes are not those of --data; they differ in {', '.join(differing[:5])}"
            )
    else:
        count = max(1, round(options.held_out * len(source)))
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(options.seed)).tolist()
        source, held_out = Part(source, sorted(order[count:])), Part(source, sorted(order[:count]))
    if len(source) < options.batch:
        raise UsageError(
            f"--data {data}: {len(source)} clips to learn from, fewer than a batch of {options.batch}",
            hint="give more clips, or a smaller --batch",
        )
    return source, held_out


def _class_count(subject: Subject) -> int | None:
    """Classes of a network whose one output is (N, classes)."""
    with evaluation(subject.model), torch.no_grad():
        outputs = subject.model(*subject.args, **subject.kwargs)
    if isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1:
        return int(outputs.shape[1])
    return None


def _use_labels(wanted: bool | None, source: Source, classes: int | None) -> bool:
    if wanted is False or (wanted is None and (source.classes is None or classes is None)):
        return False
    if source.classes is None:
        raise UsageError("--labels: the clips have none", hint="leave --labels out to learn from the original alone")
    if classes is None:
        raise UsageError("--labels: the network's output is not one (N, classes)", hint="leave --labels out")
    if len(source.classes) != classes:
        raise UsageError(
            f"the network knows {classes} classes, the data has {len(source.classes)}",
            hint="add --no-labels to learn from the original alone",
        )
    return True


def _label_weight(options: TuneOptions, used: bool) -> float:
    return (options.weights.labels or 1.0) if used else 0.0


def _fitting_clips(source: Source) -> Tensor:
    """Clips for the least-squares fit; the same ones in every process."""
    found: list[Tensor] = []
    for index in range(0, len(source), max(1, len(source) // _FITTED_ON)):
        try:
            found.append(source.read(index, View()))
        except ClipUnreadable:
            continue  # training names it
        if len(found) == _FITTED_ON:
            break
    if not found:
        raise UsageError("none of the clips that the fit starts from can be read", hint="check --data")
    return torch.stack(found)


def _notes(trainer: Trainer) -> list[str]:
    """What should make a user look twice."""
    accuracy, classes = trainer.teacher_accuracy, len(trainer.held_out.classes or ())
    if accuracy is not None and classes > 1 and accuracy < 2 / classes and trainer.options.weights.labels:
        return [
            f"the original is right on {accuracy:.0%} of the held-out clips, as if it guessed: are the classes of the "
            "data in the network's order, and the clips normalised as it was trained?"
        ]
    return []


def _asked(submodule: str | None, fix: Fixes | None) -> dict[str, Any]:
    """What of the network is tuned, for the recipe and for a run that goes on; empty for all of it as it is."""
    told: dict[str, Any] = {"submodule": submodule} if submodule is not None else {}
    return told | ({"fix": fixes_text(fix)} if fix else {})


def _check_writable(subject: Subject) -> None:
    """Refuse a network that could be trained but not written: plain `torch.export` reads no input by value.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with evaluation(subject.model), quiet(), torch.no_grad():
            torch.export.export(subject.model, subject.args, dict(subject.kwargs), strict=False)
    except Exception as error:  # of torch, or of the network's own code
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"{subject.source} with fixed inputs cannot be written as a .pt2: {why}",
            hint="replace what is counted by an input's values in its forward by numbers, then tune it without --fix",
        ) from error


def _write(
    target: Path,
    student: nn.Module,
    subject: Subject,
    report: TuneReport,
    options: TuneOptions,
    asked: Mapping[str, Any],
) -> None:
    """The archive and its recipe, together or not at all."""
    student = student.cpu()
    recipe = recipe_path(target)
    args = tuple(arg.cpu() if isinstance(arg, Tensor) else arg for arg in subject.args)
    with evaluation(student), quiet(), torch.no_grad():
        program = torch.export.export(student, args, dict(subject.kwargs), strict=False)
    sources = list(subject.files or ([subject.path] if subject.path is not None else []))
    facts = {"block": report.block, **asked, **options.to_dict(), "best": report.best.to_dict(), "steps": report.steps}
    with staged(target, recipe) as (archive, beside):
        with quiet():
            torch.export.save(program, archive)
        beside.write_bytes(recipe_bytes("tune", sources, facts, {target.name: archive}, ("torch", "numpy", "av")))
