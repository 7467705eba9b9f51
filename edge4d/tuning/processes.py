"""Several processes, on one machine or many, as ``torchrun`` starts them; one process is the common case."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge4d.errors import UsageError

__all__ = ["Processes", "joined"]


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is.

    Attributes:
        rank: 0 writes and reports.
        world: how many there are.
        device: what this one computes on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module whose gradients are averaged over all processes."""
        if self.world == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False, find_unused_parameters=True
        )

    def mean(self, values: Tensor) -> Tensor:
        """Over all processes, element by element; a copy."""
        return self.sum(values) / self.world

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes, element by element; a copy."""
        values = values.clone()
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def agree(self, value: float) -> float:
        """What the first process says, on all of them: clocks differ, decisions must not."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value)
        return found


@contextmanager
def joined(device: str | None = None) -> Iterator[Processes]:
    """Join the group that ``torchrun`` describes in the environment; alone without it.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``…; a GPU where there is one when None.

    Raises:
        UsageError: no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = _device(f"cuda:{local}" if kind == "cuda" else kind)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1 or torch.distributed.is_initialized():
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        yield Processes(rank, world, chosen)
        return
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), chosen)
    finally:
        torch.distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}", hint="cpu, cuda, cuda:1…") from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(chosen.type, 0)
    if (chosen.index or 0) >= there:
        raise UsageError(
            f"--device {name}: there is none; GPUs that torch {torch.__version__} can use: {torch.cuda.device_count()}",
            hint="leave --device out for what there is",
        )
    return chosen
