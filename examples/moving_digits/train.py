"""Train the moving-digits network: `python -m examples.moving_digits.train`.

Same seed, same thread count and same libraries give the same checkpoint. The one beside this file was made so.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from examples.moving_digits.data import CLASSES, load_images, make_test_set, training_batches
from examples.moving_digits.model import build

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKPOINT = Path(__file__).with_name("moving_digits.pt")


def accuracy(model: nn.Module, clips: NDArray[np.float32], labels: NDArray[np.int64], batch: int = 50) -> float:
    """Share of clips (N, C, T, H, W) whose highest score is the label's, with the model in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        scores = [model(torch.from_numpy(clips[i : i + batch])) for i in range(0, len(clips), batch)]
    predictions = torch.cat(scores).argmax(1).numpy()
    return float((predictions == labels).mean())


def train(steps: int, batch: int, rate: float, seed: int) -> nn.Module:
    """Train from fresh weights on clips of the training scans, a new batch at every step."""
    torch.manual_seed(seed)
    images, _ = load_images()
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    started, running = time.perf_counter(), 0.0
    for step, (clips, labels) in enumerate(training_batches(images, steps, batch, seed), start=1):
        loss = F.cross_entropy(model(torch.from_numpy(clips)), torch.from_numpy(labels))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        running = loss.item() if step == 1 else 0.95 * running + 0.05 * loss.item()
        if step % 25 == 0 or step == steps:
            print(f"step {step:4d}/{steps}  loss {running:.3f}  {time.perf_counter() - started:5.0f} s", flush=True)
    return model.eval()


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write the checkpoint whole or not at all: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main() -> None:
    """Train, measure on the held-out clips, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32, help="clips per step")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="1 gives the same weights on every run")
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    model = train(arguments.steps, arguments.batch, arguments.rate, arguments.seed)
    clips, labels = make_test_set()
    score = accuracy(model, clips, labels)
    config = {key: value for key, value in vars(arguments).items() if key not in {"output", "threads"}}
    config |= {"classes": list(CLASSES), "test_clips": len(clips), "clip_shape": list(clips.shape[1:])}
    save({"state_dict": model.state_dict(), "accuracy": score, "config": config}, arguments.output)
    print(f"test accuracy {score:.2%} on {len(clips)} clips; wrote {arguments.output}")


if __name__ == "__main__":
    main()
