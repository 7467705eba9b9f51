"""What a model file turns into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch import nn

__all__ = ["Kind", "Loaded", "Source"]

Kind = Literal["exported-program", "torchscript", "module", "state-dict", "onnx", "huggingface"]


@dataclass(frozen=True)
class Source:
    """Which file a model came from, so that an artifact can be traced back to it.

    Attributes:
        name: the file's name without its folders (a path would tell about the user's machine).
        sha256: SHA-256 of the file's bytes, 64 hexadecimal digits; see `of_files` for a model in several.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Source:
        """Hash `path` in blocks, so that a model of any size takes little memory."""
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return cls(path.name, digest.hexdigest())

    @classmethod
    def of_files(cls, name: str, folder: Path, files: Sequence[Path]) -> Source:
        """A model in several files, whose bytes all count.

        Args:
            name: what it is called.
            folder: in which, or below which, the files lie.
            files: the hash is that of the lines ``hash  path``, as `sha256sum` writes them in `folder`.
        """
        lines = [f"{cls.of(path).sha256}  {path.relative_to(folder).as_posix()}\n" for path in sorted(files)]
        return cls(name, hashlib.sha256("".join(lines).encode()).hexdigest())


@dataclass
class Loaded:
    """A model as it came out of its file.

    Attributes:
        kind: what the file held.
        module: ready to be called, in eval mode; the ScriptModule itself for TorchScript.
        program: the program of a `torch.export` archive, None for the other kinds.
        example_args: positional example inputs, when the archive carries them.
        source: name and hash of the file.
        example_kwargs: keyword example inputs of the archive, nearly always empty.
        told: shape of the input that lies beside the weights.
        files: what was read, where it is not the one file.
    """

    kind: Kind
    module: nn.Module | None
    program: torch.export.ExportedProgram | None
    example_args: tuple[Any, ...] | None
    source: Source
    example_kwargs: dict[str, Any] = field(default_factory=dict)
    told: tuple[int, ...] | None = None
    files: tuple[Path, ...] = ()
