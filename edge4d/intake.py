"""How a graph takes one of its inputs: as a camera or a decoder delivers it, instead of as the model wants it.

    what the model takes = (frames / scale - mean) / std, by channel, with the model's own order of axes

The order is ``nchw`` (the model's own: N C T H W, N C H W) or ``nhwc`` (channels last: N T H W C, N H W C). A graph
that normalises takes uint8; one that only has another order takes the model's own type.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from edge4d.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FIELDS", "LAYOUTS", "PIXELS", "Given", "Intake", "Normalize"]

LAYOUTS = ("nchw", "nhwc")
"""Orders of axes by name; ``nchw`` is the model's own."""

PIXELS = "uint8"
"""What a graph that normalises takes."""

_SPELLING = (
    "'mean=0.43,0.39,0.37 std=0.22,0.22,0.21 scale=255' (scale is 255 unless said), or MEAN,STD,SCALE in numbers"
)
FIELDS = ("mean", "std", "scale")
"""Of a `Normalize`, as they are spelt."""

Given: TypeAlias = "str | Mapping[str, Any] | Normalize"


@dataclass(frozen=True)
class Normalize:
    """(value / scale - mean) / std.

    Attributes:
        mean, std: one number for all channels, or one for each.
        scale: what the frames are divided by first; mean and std are those of the quotient.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0

    def __post_init__(self) -> None:
        for name, numbers in (("mean", self.mean), ("std", self.std), ("scale", (self.scale,))):
            if not numbers or not all(math.isfinite(number) for number in numbers):
                raise UsageError(f"--normalize: {name} is {list(numbers)}, expected finite numbers", hint=_SPELLING)
            if name != "mean" and not min(numbers) > 0:
                raise UsageError(
                    f"--normalize: {name} holds {min(numbers):g}, expected numbers above 0", hint=_SPELLING
                )
        if len({len(self.mean), len(self.std)} - {1}) > 1:
            raise UsageError(
                f"--normalize: {len(self.mean)} means for {len(self.std)} deviations",
                hint="one, or one for each channel",
            )

    @classmethod
    def of(cls, given: Given) -> Normalize:
        """Read ``mean=… std=… scale=…``, ``MEAN,STD[,SCALE]`` or a mapping with these names.

        Raises:
            UsageError: anything else, or numbers that cannot be divided by.
        """
        if isinstance(given, Normalize):
            return given
        if isinstance(given, Mapping):
            unknown = [str(name) for name in given if name not in FIELDS]
            if unknown or not given:
                raise UsageError(f"normalize holds {', '.join(unknown) or 'nothing'}, expected {', '.join(FIELDS)}")
            try:
                numbers = {
                    n: (float(v),) if isinstance(v, int | float) else tuple(map(float, v)) for n, v in given.items()
                }
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"normalize: {error}", hint="numbers, or a sequence of them for each channel"
                ) from None
        else:
            numbers = _read(str(given))
        scale = numbers.pop("scale", (255.0,))
        if len(scale) != 1:
            raise UsageError(f"--normalize: {len(scale)} scales, expected one", hint="std takes one for each channel")
        return cls(**numbers, scale=scale[0])

    @property
    def text(self) -> str:
        """``mean=0.43,0.39,0.37 std=0.22,0.22,0.21 scale=255``; `of` reads it back to the very same numbers."""
        mean, std = (",".join(map(_number, numbers)) for numbers in (self.mean, self.std))
        return f"mean={mean} std={std} scale={_number(self.scale)}"

    @property
    def channels(self) -> int | None:
        """For how many channels it has numbers; None where one number is for all."""
        return max(len(self.mean), len(self.std)) if max(len(self.mean), len(self.std)) > 1 else None

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """(a, b) with ``value * a - b`` the normalised value; float64, of one size or of one for each channel."""
        import numpy as np

        mean, std = np.broadcast_arrays(np.array(self.mean, np.float64), np.array(self.std, np.float64))
        return 1.0 / (self.scale * std), mean / std


@dataclass(frozen=True)
class Intake:
    """How one input is taken.

    Attributes:
        layout: one of `LAYOUTS`.
        normalize: what the graph does to uint8 frames; None when it takes the model's own type.
    """

    layout: str = "nchw"
    normalize: Normalize | None = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            near = difflib.get_close_matches(self.layout.lower(), LAYOUTS, n=1)
            raise UsageError(
                f"--input-layout {self.layout}: expected {' or '.join(LAYOUTS)}",
                hint=f"did you mean {near[0]}?" if near else "nhwc is frames with their channels last",
            )

    @property
    def last(self) -> bool:
        """Whether channels come last."""
        return self.layout == "nhwc"

    @property
    def text(self) -> str:
        """For people: ``nhwc, uint8 frames normalised by mean=0.45 std=0.225 scale=255``."""
        how = f"uint8 frames normalised by {self.normalize.text}" if self.normalize is not None else ""
        return ", ".join(part for part in (self.layout if self.last else "", how) if part)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"layout": self.layout, "normalize": self.normalize.text if self.normalize is not None else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Intake:
        """The inverse of `to_dict`."""
        text = data.get("normalize")
        return cls(str(data["layout"]), Normalize.of(str(text)) if text is not None else None)

    # ---- shapes and arrays ------------------------------------------------------------------------------------------

    def shape(self, own: Sequence[int]) -> tuple[int, ...]:
        """The graph's logical shape for a shape of the model's own, e.g. N C T H W -> N T H W C."""
        return (own[0], *own[2:], own[1]) if self.last else tuple(own)

    def own_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inverse of `shape`."""
        return (shape[0], shape[-1], *shape[1:-1]) if self.last else tuple(shape)

    def pattern(self, rank: int) -> str | None:
        """The packing of an input whose channels come last, as `edge4d.patterns` writes it; None up to rank 4."""
        return "n t h w c -> (n t) h w c" if rank == 5 else None

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """An array with the model's axes as the graph takes them: the values stay."""
        import numpy as np

        return np.moveaxis(array, 1, -1) if self.last else array

    def own(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `arranged`."""
        import numpy as np

        return np.moveaxis(array, -1, 1) if self.last else array

    def applied(self, array: np.ndarray) -> np.ndarray:
        """What the model takes for an array that the graph takes; float64 where it is normalised."""
        own = self.own(array)
        if self.normalize is None:
            return own
        a, b = (f.reshape(-1, *[1] * (own.ndim - 2)) for f in self.normalize.factors())
        result: np.ndarray = own * a - b
        return result


def _read(text: str) -> dict[str, tuple[float, ...]]:
    if "=" not in text:
        numbers = _numbers(text, text)
        if len(numbers) not in (2, 3):
            raise UsageError(f"--normalize {text!r}: {len(numbers)} numbers, expected 2 or 3", hint=_SPELLING)
        if len(numbers) == 3 and numbers[2] < 1:
            raise UsageError(
                f"--normalize {text!r} reads as mean {numbers[0]:g}, std {numbers[1]:g}, scale {numbers[2]:g}, and no "
                "frames are divided by less than 1",
                hint=_SPELLING,
            )
        return {name: (number,) for name, number in zip(FIELDS, numbers, strict=False)}
    found: dict[str, tuple[float, ...]] = {}
    for part in re.split(r"[\s;]+", text.strip()):
        name, sign, value = part.partition("=")
        if name not in FIELDS or not sign or name in found:
            raise UsageError(f"--normalize {text!r}: cannot read {part!r}", hint=_SPELLING)
        found[name] = _numbers(value, text)
    return found


def _numbers(value: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise UsageError(f"--normalize {text!r}: cannot read {value!r} as numbers", hint=_SPELLING) from None


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
