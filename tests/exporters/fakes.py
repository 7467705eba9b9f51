"""Runtimes that misbehave, in the ways in which real ones have been seen to."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import numpy as np

from edge4d.exporters.assembling import Compiler, assemble, description_beside
from edge4d.exporters.protocol import Availability
from edge4d.exporters.remote import RemoteSession
from edge4d.ports import Port


class Fake:
    """An exporter whose compiler is one of the functions below, and whose sessions live in a child."""

    name = "fake"
    suffixes = (".fake",)
    open_options = ()

    def __init__(self, compiler="copies", session="double"):
        self.compiler, self.session = compiler, session

    def probe(self):
        return Availability(ok=True, version="1")

    def build(self, model_path, output, *, max_rank=4, timeout=None):
        compiler = Compiler(self.name, f"{__name__}:{self.compiler}", ("numpy",))
        return assemble(compiler, model_path, [output], {}, max_rank=max_rank, timeout=timeout)

    def open(self, path, *, timeout=60):
        description_beside(path, self.name)
        return RemoteSession(path, f"{__name__}:{self.session}", str(path), timeout)


# ---- compilers --------------------------------------------------------------------------------------------------


def copies(order):
    Path(order["files"][0]).write_bytes(Path(order["model"]).read_bytes())
    print("chatter on stdout")
    return {"engine": {"pid": os.getpid()}, "notes": ["a copy"]}


def hangs(order):
    Path(order["files"][0]).write_bytes(b"half of it")
    print("about to hang", file=sys.stderr, flush=True)
    time.sleep(600)


def tells_its_pid_and_hangs(order):
    Path(order["model"]).with_name("pid").write_text(str(os.getpid()))
    time.sleep(600)


def crashes(order):
    print("about to crash", file=sys.stderr, flush=True)
    ctypes.string_at(0)


def is_killed(order):
    os.kill(os.getpid(), 9)


def leaves(order):
    os._exit(7)


def has_a_bug(order):
    raise KeyError("a bug of ours")


def fills_the_disk(order):
    raise OSError(28, "No space left on device", order["files"][0])


# ---- sessions ---------------------------------------------------------------------------------------------------


class _Session:
    def __init__(self, run):
        self.metadata, self.details = {"edge4d.version": "1"}, {"runtime": "fake"}
        self.spent = {"compute": 1.5}
        self.inputs = self.outputs = (Port("x", (2, 3), (2, 3), "float32"),)
        self.run = run


def double(path):
    return _Session(lambda arrays: {"x": arrays["x"] * 2})


def transposed(path):
    return _Session(lambda arrays: {"x": arrays["x"].T})


def crashes_in_run(path):
    return _Session(lambda arrays: {"x": np.array(ctypes.string_at(0))})


def hangs_in_run(path):
    return _Session(lambda arrays: time.sleep(600))


def hangs_in_open(path):
    time.sleep(600)
