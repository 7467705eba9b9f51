"""`edge4d.tune` on a small network: it learns, ends as it should, goes on after a kill, refuses what cannot work."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

import edge4d
from edge4d.cli import main
from edge4d.errors import ExportError, UsageError
from edge4d.tuning import trainer
from edge4d.tuning.checkpoints import checkpoint_path
from edge4d.tuning.divergence import Diverged
from edge4d.tuning.losses import Weights
from edge4d.tuning.options import TuneOptions
from tests.tuning.nets import SHAPE, Scaled, Tiny, build, build_holder, clips, write_clips

ARGS = (torch.zeros(2, *SHAPE),)
QUICK = TuneOptions(steps=24, batch=8, every=8, rate=3e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips") / "clips.npz")


@pytest.fixture
def run(data, tmp_path):
    def go(**settings):
        model = settings.pop("model", None) or build()
        return edge4d.tune(
            model, ARGS, **{"data": data, "output": tmp_path / "tuned.pt2", "options": QUICK, **settings}
        )

    return go


def weights(path):
    return torch.export.load(path).state_dict


def same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    return all(torch.allclose(a[key], b[key], rtol=tolerance, atol=tolerance) for key in a)


@pytest.mark.parametrize("block", ["proposed-add", "proposed-cat"])
def test_it_learns_and_the_result_exports(block, run, tmp_path):
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = run(block=block, model=model, labels=False, options=replace(QUICK, steps=48))
    assert report.best.loss < 0.7 * report.history[0].loss
    assert report.best.loss == min(entry.loss for entry in report.history)
    assert report.path.exists()
    assert not checkpoint_path(report.path).exists()
    assert same(before, model.state_dict()), "the caller's model is left alone"
    assert not model.training
    recipe = json.loads((tmp_path / "tuned.pt2.json").read_text())
    assert (recipe["step"], recipe["options"]["block"]) == ("tune", block)
    exported = edge4d.export(report.path, output=tmp_path / "tuned.onnx")
    assert exported.ok, exported.to_text()


def test_what_is_written_is_the_best_network(run):
    report = run()
    held_out = torch.randperm(48, generator=torch.Generator().manual_seed(0)).tolist()[:5]
    found = torch.from_numpy(clips()[0][sorted(held_out)])
    program = torch.export.load(report.path).module()
    with torch.no_grad():
        pairs = [found[[i, i]] for i in range(len(found))]  # the archive takes two clips at once
        right = [build()(pair).argmax(1)[0] == program(pair).argmax(1)[0] for pair in pairs]
    assert report.best.agreement == pytest.approx(np.mean(right))


def test_the_same_seed_gives_the_same_network(run, tmp_path):
    first = run(output=tmp_path / "a.pt2")
    second = run(output=tmp_path / "b.pt2")
    other = run(output=tmp_path / "c.pt2", options=replace(QUICK, seed=1))
    assert same(weights(first.path), weights(second.path))
    assert not same(weights(first.path), weights(other.path))


def test_parts_of_a_batch_give_the_same_network(run, tmp_path):
    whole = run(output=tmp_path / "a.pt2")
    parts = run(output=tmp_path / "b.pt2", options=replace(QUICK, accumulate=4))
    assert same(weights(whole.path), weights(parts.path), 1e-4)


ALONE = Weights(layers=0.0, outputs=0.0, labels=1.0)


def test_labels_alone_are_learned_from_without_the_original(run, tmp_path):
    """It is not asked in training, and nothing else changes: with next to no weight it teaches next to nothing."""
    asked = []

    class Asked(Tiny):
        def forward(self, clip):
            asked.append(len(clip))
            return super().forward(clip)

    options = replace(QUICK, weights=ALONE, every=24)
    alone = run(output=tmp_path / "a.pt2", options=options)
    nearly = replace(options, weights=replace(ALONE, outputs=1e-9))
    assert same(weights(alone.path), weights(run(output=tmp_path / "b.pt2", options=nearly).path), 1e-5)
    counts = []
    for chosen in (options, nearly):
        asked.clear()
        run(output=tmp_path / "c.pt2", model=build(Asked), options=replace(chosen, batch=16), force=True)
        counts.append(asked.count(16))
    assert counts == [24, 48]


def test_labels_alone_need_labels(run):
    with pytest.raises(UsageError, match="the labels alone are to be learned from"):
        run(labels=False, options=replace(QUICK, weights=ALONE))


@pytest.mark.parametrize("at", [1, 11])
def test_a_run_that_was_interrupted_goes_on_as_if_nothing_had_been(at, run, tmp_path):
    whole = run(output=tmp_path / "whole.pt2")

    def interrupt(share, text):
        if text.startswith(f"step {at}/"):
            raise KeyboardInterrupt

    broken = {
        "output": tmp_path / "broken.pt2",
        "options": replace(QUICK, save_every=1e-9),
    }
    with pytest.raises(KeyboardInterrupt):
        run(told=interrupt, **broken)
    assert not (tmp_path / "broken.pt2").exists()
    with pytest.raises(UsageError, match="is an unfinished run"):
        run(**broken)
    report = run(resume=True, **broken)
    assert same(weights(whole.path), weights(report.path))
    assert [entry.step for entry in report.history] == [0, 8, 16, 24]


def stop(share, text):
    raise KeyboardInterrupt


def test_dropout_draws_the_same_when_a_run_goes_on(run, tmp_path):
    options = replace(QUICK, norms="train", save_every=1e-9)
    whole = run(output=tmp_path / "whole.pt2", options=options)

    def interrupt(share, text):
        if text.startswith("step 11/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(output=tmp_path / "broken.pt2", options=options, told=interrupt)
    broken = run(output=tmp_path / "broken.pt2", options=options, resume=True)
    assert same(weights(whole.path), weights(broken.path))


def test_a_run_that_had_come_to_its_end_does_not_go_on(run, monkeypatch):
    """Killed after the last measurement, before the result was written."""
    options = TuneOptions(steps=60, batch=8, every=10, rate=1e-12, patience=2)
    with monkeypatch.context() as patch:
        patch.setattr("edge4d.tuning.tune.write", stop)
        with pytest.raises(TypeError):  # any error will do
            run(options=options)
    report = run(options=options, resume=True)
    assert (report.steps, report.ended) == (40, "no progress in 4 measurements")


@pytest.mark.parametrize("other", ["val", "video", "weights"])
def test_what_else_makes_a_run_another_one(other, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(told=stop)
    changed = {"val": {"val": write_clips(tmp_path / "val.npz")}, "video": {"video": {"step": 3}}}.get(other)
    if changed is None:
        changed = {"model": build()}
        changed["model"].head.weight.data += 0.1
    with pytest.raises(UsageError, match=f"belongs to a run with other options .*{other}: "):
        run(resume=True, **changed)


def test_only_the_same_run_goes_on(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(told=stop)
    with pytest.raises(UsageError, match=r"other options .*rate: 0.003 then, 0.1 now"):
        run(resume=True, options=TuneOptions(steps=24, batch=8, every=8, rate=0.1))
    checkpoint_path(tmp_path / "tuned.pt2").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match="is no checkpoint of a run"):
        run(resume=True)
    assert run(force=True).steps == 24


def test_the_budget_ends_a_run_with_the_best_so_far(run):
    report = run(options=TuneOptions(steps=100_000, batch=8, every=4, budget=4.0, patience=100_000))
    assert report.ended == "the budget is used up"
    assert 0 < report.steps < 100_000
    assert report.path.exists()


def test_a_budget_alone_decides_how_long_a_run_is(run):
    heard = []
    told = lambda share, text: heard.append((share, text))  # noqa: E731
    report = run(options=TuneOptions(batch=8, budget=3.0, patience=100_000), told=told)
    assert report.ended == "the budget is used up"
    assert 2.0 < report.seconds < 4.5
    assert 3 <= len(report.history) <= 23, "some twenty measurements, however many steps there are"
    assert heard[0][1].startswith("step 1  loss")
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 20 * 90 // 8),
        ({"epochs": 2.0}, 23),
        ({"steps": 7, "epochs": 2.0, "budget": 9.0}, 7),
        ({"epochs": 2.0, "budget": 9.0}, 23),
        ({"budget": 9.0}, None),
    ],
)
def test_steps_of_a_run(settings, steps):
    assert TuneOptions(batch=8, **settings).steps_for(90) == steps


def test_without_labels_every_clip_may_vary():
    assert TuneOptions().varying.labelled == 0
    assert TuneOptions(weights=Weights(labels=1.0)).varying.labelled == 0.5
    assert TuneOptions(vary=()).varying.kinds == ()


def test_variations_change_what_is_learned(run, tmp_path):
    varied = run(output=tmp_path / "a.pt2")
    still = run(output=tmp_path / "b.pt2", options=replace(QUICK, vary=()))
    assert not same(weights(varied.path), weights(still.path))


def test_no_progress_ends_a_run(run):
    report = run(options=TuneOptions(steps=60, batch=8, every=10, rate=1e-12, patience=2))
    assert report.ended == "no progress in 4 measurements"
    assert report.steps == 40, "not in the first half, where the rate is high"


def test_a_loss_that_is_no_number_names_the_layer_and_keeps_the_checkpoint(run, tmp_path):
    with pytest.raises(
        Diverged, match=r"loss is (nan|inf) at step \d+: the output of \S+ is the first that is not a finite"
    ) as found:
        run(options=TuneOptions(steps=50, batch=8, every=50, rate=1e30, clip=1e30, warmup=0.0))
    assert found.value.exit_code == 1
    assert checkpoint_path(tmp_path / "tuned.pt2").exists()
    assert not (tmp_path / "tuned.pt2").exists()


def test_held_out_clips_that_give_no_number_are_told_at_once(run, tmp_path):
    class Deep(Tiny):
        def forward(self, clip):
            return super().forward(clip) + (clip.mean((1, 2, 3, 4)) + 5).log()[:, None]

    val = write_clips(tmp_path / "val.npz", clips=clips()[0] - 10)
    with pytest.raises(Diverged, match="the loss on the held-out clips is nan after 0 steps"):
        run(model=build(Deep), val=val)


def test_layers_outputs_are_not_kept_while_measuring(run, monkeypatch):
    """They would be those of all held-out clips."""
    seen, measure = [], trainer.measure

    def watched(teacher, network, *others, **settings):
        seen.append(sum(len(m._forward_hooks) for side in (teacher, network) for m in side.modules()))
        return measure(teacher, network, *others, **settings)

    monkeypatch.setattr(trainer, "measure", watched)
    run()
    assert seen == [0, 0, 0, 0]


def test_labels_can_be_left_out(run):
    with_labels, without = run(), run(labels=False, force=True)
    assert with_labels.history[0].loss > without.history[0].loss
    assert without.history[0].accuracy is not None, "accuracy is shown all the same"
    assert with_labels.teacher is not None


def test_only_the_blocks_may_learn(run):
    report = run(options=replace(QUICK, trained="blocks"))
    assert torch.equal(weights(report.path)["head.weight"], build().head.weight)


def test_training_mode_moves_the_statistics(run, tmp_path):
    frozen = run(output=tmp_path / "a.pt2")
    moving = run(output=tmp_path / "b.pt2", options=replace(QUICK, norms="train"))
    assert torch.equal(weights(frozen.path)["norm.running_mean"], weights(frozen.path)["norm.running_mean"])
    assert not torch.equal(weights(moving.path)["norm.running_mean"], weights(frozen.path)["norm.running_mean"])


def test_clips_of_one_class_will_do_without_labels(run, tmp_path):
    found = write_clips(tmp_path / "one.npz", labels=np.zeros(48, int))
    assert run(data=found, labels=False).steps == 24


def test_a_network_that_cannot_be_written_is_refused_before_it_is_trained(run):
    class Counted(Tiny):
        def forward(self, clip):
            return super().forward(clip) * (2 if float(clip.detach().mean()) > 5 else 1)

    with pytest.raises(UsageError, match=r"Counted cannot be written as a \.pt2"):
        run(model=build(Counted), told=stop)


def test_broken_clips_are_counted(tmp_path, run):
    found, labels = clips()
    found[7, 0, 0, 0, 0] = np.nan
    np.savez(tmp_path / "bad.npz", clips=found, labels=labels)
    report = run(data=tmp_path / "bad.npz")
    assert report.skipped == (("bad.npz[7]", "holds values that are NaN or infinite"),)
    assert "1 clips were not read: bad.npz[7]" in report.to_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": "exact"}, "nothing to tune"),
        ({"block": "proposed-ad"}, "unknown block 'proposed-ad'"),
        ({"output": "tuned.onnx"}, "not named .pt2"),
        ({"resume": True}, "nothing to resume"),
        ({"options": TuneOptions(batch=64)}, "43 clips to learn from, fewer than a batch of 64"),
        ({"options": TuneOptions(batch=9, accumulate=2)}, "give --batch a multiple of 2"),
        ({"device": "gpu"}, "--device gpu: "),
        ({"device": "cuda:99"}, "--device cuda:99: there is none"),
    ],
)
def test_wrong_settings(settings, message, run):
    with pytest.raises(UsageError) as found:
        run(**settings)
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"clips": np.zeros((40, 1, 4, 8, 9), np.float32)}, "expected clips N x 1x4x8x8"),
        ({"labels": np.zeros(48, int)}, "all clips are of one class"),
        ({"labels": np.arange(48) % 4}, "the network knows 3 classes, the data has 4"),
    ],
)
def test_data_that_do_not_fit(arrays, message, run, tmp_path):
    write_clips(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        run(data=tmp_path / "bad.npz")


def test_a_full_disk_is_told_before_the_first_step(run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(100, 90, 10))
    with pytest.raises(ExportError, match="0 MB are free, checkpoint and result take about"):
        run()


def test_a_disk_that_fills_up_keeps_the_checkpoint(run, tmp_path, monkeypatch):
    saved, real = [], torch.save

    def save(*args, **settings):
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(1)
        return real(*args, **settings)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(ExportError, match="no space is left on the disk"):
        run()
    monkeypatch.undo()
    assert run(resume=True).steps == 24


def test_from_the_command_line(data, tmp_path, capsys):
    torch.save(build().state_dict(), tmp_path / "net.pt")
    words = f"tune {tmp_path}/net.pt --factory tests.tuning.nets:build --input-shape 1x1x4x8x8 --data {data}"
    words += f" --steps 12 --batch 8 -o {tmp_path}/tuned.pt2 --json"
    assert main(words.split()) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 12
    assert printed["best"]["loss"] <= printed["history"][0]["loss"]
    assert main(words.split()) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_part_with_a_fixed_input_is_tuned(data, tmp_path, capsys):
    torch.save(build_holder().state_dict(), tmp_path / "holder.pt")
    words = f'tune {tmp_path}/holder.pt --factory tests.tuning.nets:build_holder --submodule video --fix mode="best"'
    words += f" --input-shape 1x1x4x8x8 --data {data} --steps 12 --batch 8 -o {tmp_path}/tuned.pt2 --json"
    assert main(words.split()) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["best"]["loss"] <= printed["history"][0]["loss"]
    (recipe,) = tmp_path.glob("*.json")
    options = json.loads(recipe.read_text())["options"]
    assert (options["submodule"], options["fix"]) == ("video", ['mode="best"'])
    assert main(f"export {tmp_path}/tuned.pt2 -o {tmp_path}/tuned.onnx".split()) == 0
    assert main(words.replace("best", "worst").replace("tuned.pt2", "other.pt2").split()) == 0
    plain, reverse = (weights(tmp_path / name) for name in ("tuned.pt2", "other.pt2"))
    assert not same(plain, reverse)  # another teacher


def test_a_network_that_counts_by_its_fixed_input_is_refused_before_it_is_trained(run):
    class Parts(Scaled):
        def forward(self, clip, grid):
            return sum(part.mean((2, 3, 4)) @ torch.eye(1, 3) for part in clip.split([int(n) for n in grid], 2))

    with pytest.raises(UsageError, match=r"Parts with fixed inputs cannot be written as a \.pt2"):
        run(model=build(Parts), fix={"grid": [1, 3]})
