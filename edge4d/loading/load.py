"""From a path to a `Loaded`: recognise, read with the reader of that kind, put into eval mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import LoadError, UsageError
from edge4d.fixed_inputs import Fixes, fix_inputs, part_of
from edge4d.loading.huggingface import is_folder, load_folder
from edge4d.loading.loaded import Kind, Loaded, Source
from edge4d.loading.sniff import Format, sniff

if TYPE_CHECKING:
    import os

    from torch import nn

__all__ = ["load_model"]


def load_model(
    path: str | os.PathLike[str],
    *,
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
) -> Loaded:
    """Load a model file of any kind.

    Args:
        path: a `torch.export` archive, a TorchScript archive, a pickled `nn.Module`, a state_dict (also safetensors),
            a training checkpoint with one of the last two in it, an ONNX file of any rank, or a Hugging Face folder.
        factory: ``package.module:callable`` that builds the network for a state_dict.
        trust_pickle: the user vouches for the file: pickles may run code. Without it nothing in the file is run.
        submodule: the part of the network that is wanted, by its path, e.g. ``model.visual``.
        fix: inputs that the network makes itself; see `edge4d.fixed_inputs`.

    Returns:
        The model on the CPU in eval mode, with its source.

    Raises:
        LoadError: unreadable, unknown, refused, or weights that do not fit.
        LoweringError: an ONNX file with operators that are not imported.
        UsageError: a factory that does not work, or one given where it is of no use; no such part or input.
        RuntimeUnavailable: the library of a network that is named is not installed.
    """
    loaded = _load(Path(path), factory, trust_pickle)
    if submodule is not None:
        loaded.module, loaded.told = part_of(loaded.program or loaded.module, submodule), None
    if fix:
        loaded.module = fix_inputs(loaded.program or loaded.module, fix)
    return loaded


def _load(file: Path, factory: str | None, trust_pickle: bool) -> Loaded:
    if is_folder(file):
        _no_factory(file, factory, "a Hugging Face folder")
        network, told, files = load_folder(file, trust=trust_pickle)
        source = Source.of_files(file.resolve().name, file, files)
        return Loaded("huggingface", network, None, None, source, told=told, files=files)
    form = sniff(file)
    if form is Format.PROGRAM:
        return _from_program(file, factory, trust_pickle)
    if form is Format.TORCHSCRIPT:
        from edge4d.loading.torchscript import load_script

        _no_factory(file, factory, form.value)
        script = load_script(file, trust=trust_pickle)
        return Loaded("torchscript", script, None, None, Source.of(file))
    if form is Format.ONNX:
        from edge4d.loading.onnx import load_onnx

        _no_factory(file, factory, form.value)
        graph, files = load_onnx(file)
        source = Source.of(file) if len(files) == 1 else Source.of_files(file.name, file.parent, files)
        return Loaded("onnx", graph, None, None, source, files=files)
    kind, module = _from_weights(file, form, factory, trust_pickle)
    return Loaded(kind, module.eval(), None, None, Source.of(file))


def _no_factory(path: Path, factory: str | None, what: str) -> None:
    if factory is not None:
        raise UsageError(
            f"--factory {factory}: {path} is {what}, which holds the network itself", hint="leave --factory out"
        )


def _from_program(path: Path, factory: str | None, trust: bool) -> Loaded:
    from edge4d.loading.program import load_program

    _no_factory(path, factory, Format.PROGRAM.value)
    program, module = load_program(path, trust=trust)
    args, kwargs = program.example_inputs or (None, {})
    return Loaded("exported-program", module, program, args, Source.of(path), dict(kwargs))


def _from_weights(path: Path, form: Format, factory: str | None, trust: bool) -> tuple[Kind, nn.Module]:
    from edge4d.loading.checkpoint import fit, unwrap
    from edge4d.loading.factory import build
    from edge4d.loading.pickles import read_pickle
    from edge4d.loading.safetensors import read_safetensors

    raw = read_safetensors(path) if form is Format.SAFETENSORS else read_pickle(path, trust=trust)
    found = unwrap(raw, path)
    if not isinstance(found, dict):
        _no_factory(path, factory, "a pickled module")
        return "module", found
    if factory is None:
        names = ", ".join(list(found)[:3])
        raise LoadError(
            f"{path}: a state_dict: {len(found)} weights ({names}, …) without the network they belong to",
            hint=f"name the function that builds it: edge4d export {path} --factory my_package.my_models:build_model",
        )
    module = build(factory)
    fit(module, found, path)
    return "state-dict", module
