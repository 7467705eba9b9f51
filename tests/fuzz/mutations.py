"""Broken models made from whole ones: bytes changed, and messages that are valid protobuf but no valid graph."""

from __future__ import annotations

import random
from collections.abc import Callable

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto

__all__ = ["mutate"]

_NUMBERS = (0, 1, -1, 2, 3, 5, 127, 2**31 - 1, 2**31, -(2**31), 2**60, 2**62, 2**63 - 1, -(2**63))
_TEXTS = ("", "x", "y", "Conv", "Reshape", "Loop", "If", "Gather", "ai.onnx", "com.microsoft", "a\n\x1b[31m", "é" * 50)


def mutate(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    """A few changes to a model, on its messages or on its bytes.

    Args:
        rng: all randomness there is.
        model: is not changed.
        other: where parts are taken from.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        _change_a_message(rng, copy, other)
    data = copy.SerializeToString()
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        data = rng.choice(_ON_BYTES)(rng, data)
    return data


# ---- messages -----------------------------------------------------------------------------------------------------


def _messages(root: Message) -> list[Message]:
    found, waiting = [], [root]
    while waiting:
        message = waiting.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                waiting += list(value) if field.is_repeated else [value]
    return found


def _change_a_message(rng: random.Random, root: Message, other: Message) -> None:
    message = rng.choice(_messages(root))
    field = rng.choice(message.DESCRIPTOR.fields)
    held = getattr(message, field.name)
    if field.is_repeated:
        _change_a_list(rng, held, field, other)
    elif field.type == field.TYPE_MESSAGE:
        _take_from(rng, held, other) if rng.random() < 0.6 else message.ClearField(field.name)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(rng, field))


def _change_a_list(rng: random.Random, held, field, other: Message) -> None:
    way = rng.randrange(4)
    if way == 0 and held:
        del held[rng.randrange(len(held))]
    elif way == 1 and len(held) > 1:
        kept = list(held) if field.type != field.TYPE_MESSAGE else [_copy(item) for item in held]
        rng.shuffle(kept)
        del held[:]
        held.extend(kept)
    elif field.type != field.TYPE_MESSAGE:
        if held and rng.random() < 0.5:
            held[rng.randrange(len(held))] = _scalar(rng, field)
        else:
            held.extend(_scalar(rng, field) for _ in range(rng.choice((1, 1, 2, 6))))
    elif held and rng.random() < 0.6:
        held.add().CopyFrom(rng.choice(held))
    else:
        _take_from(rng, held.add(), other)


def _copy(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _take_from(rng: random.Random, target: Message, other: Message) -> None:
    """Become a message of the same kind out of another model."""
    same = [message for message in _messages(other) if message.DESCRIPTOR is target.DESCRIPTOR]
    if same:
        target.CopyFrom(rng.choice(same))


def _scalar(rng: random.Random, field):
    if field.enum_type is not None:
        return rng.choice([value.number for value in field.enum_type.values])
    if field.cpp_type == field.CPPTYPE_STRING:
        text = rng.choice(_TEXTS)
        return text if field.type == field.TYPE_STRING else text.encode()
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, 1.0, -1.0, float("inf"), float("nan")))
    number = rng.choice(_NUMBERS)
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return number % 2**bits
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


# ---- bytes --------------------------------------------------------------------------------------------------------


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    i = rng.randrange(len(data))
    return data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _lose(rng: random.Random, data: bytes) -> bytes:
    i = rng.randint(0, len(data))
    return data[:i] + data[i + rng.randint(0, 40) :]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    i = rng.randint(0, len(data))
    return data[:i] + data[max(i - rng.randint(0, 200), 0) :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    i = rng.randint(0, len(data))
    return data[:i] + rng.randbytes(rng.randint(1, 20)) + data[i:]


_ON_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _flip, _cut, _lose, _repeat, _insert)


def parses(data: bytes) -> bool:
    """Whether it is a message at all."""
    try:
        ModelProto.FromString(data)
    except DecodeError:
        return False
    return True
