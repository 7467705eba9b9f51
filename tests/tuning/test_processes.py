"""Two processes over gloo, as ``torchrun`` starts them, do what one process does with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edge4d.tuning.checkpoints import checkpoint_path
from tests.tuning.nets import build, write_clips

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    torch.save(build().state_dict(), folder / "net.pt")
    write_clips(folder / "clips.npz")
    return folder


def command(place, output, processes=1, *options):
    words = ["-m", "edge4d", "tune", "net.pt", "--factory", "tests.tuning.nets:build", "--input-shape", "1x1x4x8x8"]
    words += ["--data", "clips.npz", "--steps", "16", "--batch", "8", "-o", output, *options]
    if processes > 1:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *words]
    return [sys.executable, *words]


def run(place, output, processes=1, *options):
    done = subprocess.run(
        command(place, output, processes, *options),
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, torch.export.load(place / output).state_dict


def furthest(a, b):
    return max(float((a[key] - b[key]).detach().abs().max()) for key in a)


@pytest.fixture(scope="module")
def alone(place):
    return run(place, "alone.pt2")[1]


def test_two_processes_are_one_with_the_whole_batch(place, alone):
    printed, together = run(place, "together.pt2", 2)
    assert furthest(alone, together) < 1e-5
    fresh = build().state_dict()
    assert furthest({"head.weight": fresh["head.weight"]}, together) > 1e-4, "nothing was learned, nothing compared"
    assert printed.count("kept: step") == 1, "only the first process speaks"


KILLED = """
import os, sys
from dataclasses import replace
import torch
import edge4d
from edge4d.tuning.options import TuneOptions
from tests.tuning.nets import SHAPE, build

def told(share, text):
    if text.startswith("step 6/"):
        os._exit(9)  # as kill -9 would

edge4d.tune("net.pt", data="clips.npz", output="moved.pt2", factory="tests.tuning.nets:build",
            input_shapes=[(1, *SHAPE)], options=TuneOptions(steps=16, batch=8, save_every=1e-9), told=told,
            video={"step": 2, "short_side": None, "flip": True})
"""


def test_a_killed_run_goes_on_with_another_number_of_processes(place, alone):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=place, env=environment, check=False)
    assert killed.returncode == 9
    assert checkpoint_path(place / "moved.pt2").exists()
    _, moved = run(place, "moved.pt2", 2, "--resume")
    assert furthest(alone, moved) < 1e-5
