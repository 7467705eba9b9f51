"""Keeps the chatter of other libraries out of the user's terminal; their errors still come as exceptions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_LOUD = ("torch", "torch._subclasses.fake_tensor", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log records of torch, onnxscript and onnx-ir for a while; the former levels come back."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    before = [(logger.level, logger.disabled) for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, (level, disabled) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.disabled = disabled
