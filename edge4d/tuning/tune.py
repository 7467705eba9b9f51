"""`edge4d.tune`: a network with the paper's structures learns to give what the original gave."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge4d.blocks.choice import BlockSpec, Choice
from edge4d.errors import UsageError
from edge4d.files import refuse_existing, refuse_folder
from edge4d.fixed_inputs import Fixes, fixes_text
from edge4d.subject import Subject, evaluation
from edge4d.swapping import swap_with_report
from edge4d.tuning.checkpoints import check_space, checkpoint_path
from edge4d.tuning.clips import clip_spec, fitting_clips, sources, use_labels
from edge4d.tuning.options import TuneOptions
from edge4d.tuning.processes import Processes, joined
from edge4d.tuning.report import TuneReport
from edge4d.tuning.trainer import Told, Trainer
from edge4d.tuning.writing import check_writable, write

__all__ = ["tune"]

Stage = Callable[[str], AbstractContextManager[None]]

_COPIES = 10  # of the weights: five in a checkpoint, and its successor is written beside it


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
            train, held_out = sources(data, val, split, spec, options)
        classes = _class_count(subject)
        used = use_labels(labels, train, classes)
        if not used and not options.weights.original:
            raise UsageError(
                "the labels alone are to be learned from, and there are none to use",
                hint="give labelled clips, or leave --recipe train out to learn from the original",
            )
        options = replace(options, weights=replace(options.weights, labels=_label_weight(options, used)))
        with staging("swapping"):
            student, swapped = swap_with_report(
                subject.model, block, args=subject.args, calib=fitting_clips(train), **(block_options or {})
            )
            check_writable(student, subject, fixed=bool(fix))
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
            "weights": _fingerprint(teacher),
            "data": str(data),
            "clips": len(train),
            "val": None if val is None else str(val),
            "split": None if split is None else str(split),
            "video": asdict(spec),
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
            seconds=trainer.pace.seconds,
            skipped=(*train.skipped, *trainer.failed.items()),
            swap=swapped,
            notes=notes,
        )
        if processes.first:
            with staging("writing"):
                write(target, student, subject, report, options, _asked(submodule, fix))
            trainer.checkpoint.unlink(missing_ok=True)
        return report


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


def _class_count(subject: Subject) -> int | None:
    """Classes of a network whose one output is (N, classes)."""
    with evaluation(subject.model), torch.no_grad():
        outputs = subject.model(*subject.args, **subject.kwargs)
    if isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1:
        return int(outputs.shape[1])
    return None


def _label_weight(options: TuneOptions, used: bool) -> float:
    return (options.weights.labels or 1.0) if used else 0.0


def _asked(submodule: str | None, fix: Fixes | None) -> dict[str, Any]:
    """What of the network is tuned, for the recipe and for a run that goes on; empty for all of it as it is."""
    told: dict[str, Any] = {"submodule": submodule} if submodule is not None else {}
    return told | ({"fix": fixes_text(fix)} if fix else {})


def _fingerprint(network: nn.Module) -> str:
    """SHA-256 of its weights: a network in memory has no other name than its class's."""
    digest = hashlib.sha256()
    for name, value in itertools.chain(network.named_parameters(), network.named_buffers()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _notes(trainer: Trainer) -> list[str]:
    """What should make a user look twice."""
    accuracy, classes = trainer.teacher_accuracy, len(trainer.held_out.classes or ())
    if accuracy is not None and classes > 1 and accuracy < 2 / classes and trainer.options.weights.labels:
        return [
            f"the original is right on {accuracy:.0%} of the held-out clips, as if it guessed: are the classes of the "
            "data in the network's order, and the clips normalised as it was trained?"
        ]
    return []
