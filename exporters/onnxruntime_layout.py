"""Layouts of weights that belong to a kind of processor: the mark of an engine that holds them, and its check.

Optimised to the level `all`, ONNX Runtime puts the weights of convolutions into blocks as wide as the processor's
vectors, and saves them so. Nothing in such a file says how wide they are: on a processor with other vectors its numbers
would be taken for what they are not. So an engine carries in its metadata what this machine's ONNX Runtime makes of a
tiny convolution, and edge4d opens it only where the same comes out.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import ValidationError
from edge4d.exporters.onnxruntime_products import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LAYOUT", "PROBE", "check_layout", "layout_here", "mark", "unmarked"]

LAYOUT = "edge4d.engine.onnxruntime"
"""Metadata key of an engine whose weights lie as this processor wants them."""

PROBE = base64.b64decode(
    "CAgSADqfAQoPCgF4CgF3EgF5IgRDb252EgFnKk8IBAgECAEIARABQgF3SkAAAIA/AAAAQAAAQEAAAIBAAACgQAAAwEAAAOBAAAAAQQAAEEEAACBBAAAw"
    "QQAAQEEAAFBBAABgQQAAcEEAAIBBWhsKAXgSFgoUCAESEAoCCAEKAggECgIIAQoCCAFiGwoBeRIWChQIARIQCgIIAQoCCAQKAggBCgIIAUIECgAQDQ=="
)
"""An ONNX model: one Conv of 4 to 4 channels, whose kernel holds 1 to 16. ONNX Runtime fills the channels up to a whole
block, so that what it saves tells the width and the order. Kept as bytes, for a session needs no onnx."""


@lru_cache(maxsize=1)
def layout_here() -> str:
    """Version of ONNX Runtime and a digest of what it makes of `PROBE` here, e.g. ``1.32.0 29b08ca96343``."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory(prefix="edge4d-") as folder:
        made = Path(folder, "probe.onnx")
        settings.optimized_model_filepath = str(made)
        onnxruntime.InferenceSession(PROBE, settings, providers=["CPUExecutionProvider"])
        digest = hashlib.sha256(made.read_bytes()).hexdigest()[:12]
    return f"{onnxruntime.__version__} {digest}"


def unmarked(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata without what an engine says of processors."""
    return {key: value for key, value in metadata.items() if key not in (LAYOUT, PRODUCTS)}


def mark(model: Path, metadata: Mapping[str, str]) -> None:
    """Write into an ONNX file that its weights lie as this processor wants them.

    Args:
        model: changed in place.
        metadata: what it carries; one that is marked, and could be opened here, keeps its mark.
    """
    if LAYOUT in metadata:
        return
    import onnx

    note = onnx.ModelProto()
    note.metadata_props.add(key=LAYOUT, value=layout_here())
    with model.open("ab") as file:  # of a repeated field, protobuf joins what follows to what was there
        file.write(note.SerializeToString())


def check_layout(path: Path, metadata: Mapping[str, str]) -> None:
    """Refuse an engine that was made where weights lie otherwise.

    Raises:
        ValidationError: by another version of ONNX Runtime, or on another kind of processor.
    """
    made = metadata.get(LAYOUT)
    if made is None or made == layout_here():
        return
    (version, _, digest), (own, _, here) = made.partition(" "), layout_here().partition(" ")
    what = f"by ONNX Runtime {version}, this is {own}" if version != own else "on a processor of another kind"
    raise ValidationError(
        f"{path} holds weights in layouts of the processor that it was built on; it was built {what} "
        f"(layout {digest or '?'}, this one's is {here}), and may compute wrong numbers here",
        hint="build it again here with `edge4d build`, or with --level extended, which runs on any processor",
    )
