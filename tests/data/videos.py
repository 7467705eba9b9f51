"""Small videos that the tests encode themselves: frame k has the grey level 10 + 4·k, which tells its number."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CODECS = {"mpeg4": ".mp4", "mjpeg": ".avi", "libx264": ".mp4", "libvpx": ".webm", "ffv1": ".mkv"}


def level(number: int) -> int:
    """Grey of a frame."""
    return 10 + 4 * number


def write_video(
    path: Path, frames: int = 40, width: int = 64, height: int = 48, codec: str = "mpeg4", rate: int = 25
) -> Path:
    """Encode a video whose left half is brighter by 40 than its right half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = {"ffv1": "yuv420p", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 12
        stream.bit_rate = 4_000_000
        for number in range(frames):
            image = np.full((height, width, 3), level(number), np.uint8)
            image[:, : width // 2] += 40
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def numbers(clip: np.ndarray) -> np.ndarray:
    """Frame numbers of a clip (C, T, H, W) with pixels in 0..1, from the right edge's grey."""
    return (255 * clip[:, :, :, -2:].mean((0, 2, 3)) - level(0)) / 4
