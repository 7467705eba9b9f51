"""Freed memory stays with the process for a while, where the C library can be told so."""

from __future__ import annotations

import resource

import pytest
import torch

from edge4d.tuning import memory
from edge4d.tuning.memory import kept_memory


class Library:
    """Hears what malloc is told."""

    def __init__(self):
        self.told = []

    def mallopt(self, name, value):
        self.told.append((name, value))

    def malloc_trim(self, pad):
        self.told.append("trim")


def faults(times=8):
    """Page faults of 48 MiB that are taken and freed so many times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(48 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(memory._glibc() is None, reason="another C library than glibc")
def test_pages_are_not_taken_again():
    with kept_memory():
        faults(24)  # the heap grows until one of its gaps is large enough
        inside = faults()
    assert inside < faults() / 2


def test_afterwards_it_is_as_usual_also_after_an_error(monkeypatch):
    library = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: library)

    def fail():
        with kept_memory():
            assert library.told == [(-4, 0), (-1, -1)]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert library.told[2:] == [(-4, 65536), (-1, 64 << 20), "trim"]


def test_what_the_user_has_set_stays(monkeypatch):
    library = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    with kept_memory():
        pass
    assert not library.told


def test_another_system_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory._glibc() is None
    with kept_memory():
        pass
