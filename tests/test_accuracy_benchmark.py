"""`benchmarks.accuracy`: its recipes, one tiny training of each, what a rerun skips, and the table."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import edge4d.errors
from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import record, tables, training
from benchmarks.accuracy.config import HOME, load_config
from benchmarks.accuracy.start import from_inception
from edge4d import blocks

TINY = """
recipe = "{recipe}"
seeds = [0]
structures = ["conv3d", "rank-1"]
chains = {chains}
[network]
model = "eco-lite-small"
frames = 8
size = 64
{network}
[sets.source]
train = "digits:source"
test = "digits:source"
train_clips = 48
test_clips = 24
[sets.target]
train = "digits:target"
test = "digits:target"
train_clips = 40
test_clips = 8
[stages.source]
epochs = 2
batch = 16
rate = 3e-3
[stages.target]
epochs = 3
batch = 16
rate = 3e-3
finetune_rate = 1e-3
"""
SCRATCH, FINETUNE = '[["source"], ["target"]]', '[["source", "target"]]'
CACHED = "freeze_2d = true\ncache_2d = true"


def config_file(tmp_path, recipe="scratch", chains=SCRATCH, network=CACHED, name="tiny.toml"):
    path = tmp_path / name
    path.write_text(TINY.format(recipe=recipe, chains=chains, network=network))
    return path


def train(config, tmp_path, chain=("source",), **options):
    said = []
    options = {"start": None, "folder": tmp_path, "told": said.append, **options}
    return training.train_chain(config, chain, "rank-1", 0, **options), said


# ---- the recipes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-videos"])
def test_both_recipes_share_their_first_training(suffix):
    scratch, finetune = load_config(f"scratch{suffix}"), load_config(f"finetune{suffix}")
    assert scratch.structures == finetune.structures == blocks.names()
    assert (scratch.recipe, finetune.recipe) == ("scratch", "finetune")
    for seed in scratch.seeds:
        keys = {training.key_of(config, ("source",), "p3d-a", seed) for config in (scratch, finetune)}
        assert len(keys) == 1
    assert {(c.recipe, chain) for c in (scratch, finetune) for chain in c.chains} == {
        (column.recipe, column.chain) for column in tables.COLUMNS
    }


def test_a_key_stands_for_what_decides_the_numbers(tmp_path):
    one = load_config(config_file(tmp_path))
    other = load_config(config_file(tmp_path, network=""))
    keys = {
        training.key_of(config, chain, structure, seed)
        for config in (one, other)
        for chain in one.chains
        for structure in one.structures
        for seed in (0, 1)
    }
    assert len(keys) == 16


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [0]", "seeds = []", "must not be empty"),
        ("seeds = [0]", "seed = [0]", "unknown keys: seed"),
        ('"conv3d"', '"conv4d"', "unknown block 'conv4d'"),
        ('"eco-lite-small"', '"ecolite"', "unknown model 'ecolite'"),
        ('recipe = "scratch"', 'recipe = "both"', "recipe is 'both'"),
        ('[["source"], ["target"]]', '[["sauce"]]', r"chains name \['sauce'\]"),
        ("epochs = 2", "epochs = 0", "epochs is 0, expected more than 0"),
        ("epochs = 2", 'epochs = "2"', "epochs is '2', expected int"),
        ("epochs = 2\n", "", "missing keys: epochs"),
        ("batch = 16", "batches = 16", "unknown keys: batches"),
        ("freeze_2d = true\n", "", "cache_2d needs freeze_2d"),
        ("frames = 8", "frames = [", "cannot be read"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, old, new, said):
    path = config_file(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(edge4d.errors.UsageError, match=said):
        load_config(path)


def test_an_unknown_recipe_names_those_there_are(tmp_path, capsys):
    assert command.main(["scrach", "--out", str(tmp_path / "log.jsonl")]) == 2
    assert "scrach: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('train = "digits:source"', 'train = "digits:sauce"', "no generated set is named 'sauce'"),
        ("size = 64", "size = 83", "has 8 frames of 64 pixels"),
        ('train = "digits:source"', 'train = "nowhere.csv"', "no such file"),
    ],
)
def test_clips_that_are_not_there_are_refused(tmp_path, old, new, said):
    path = config_file(tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(edge4d.errors.UsageError, match=said):
        train(load_config(path), tmp_path)


# ---- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [CACHED, "freeze_2d = true", ""])
def test_a_chain_trains_what_it_should(tmp_path, network):
    """The first set's training is kept and reused; a frozen 2D-Net stays, another learns; the rest always learns."""
    config = load_config(config_file(tmp_path, "finetune", FINETUNE, network))
    start = training.build(config, "rank-1", 24, None, 7).net2d.state_dict()
    last, _ = train(config, tmp_path, ("source", "target"), start=start)
    first, said = train(config, tmp_path, start=start)
    assert said == []  # read, not trained again
    assert [entry["epoch"] for entry in last.facts["curve"]] == [1, 2, 3]
    assert last.facts["seconds_before"] == first.facts["seconds"]
    assert (last.facts["train_clips"], last.facts["test_clips"], last.facts["classes"]) == (40, 8, 24)
    for name, value in start.items():
        same = torch.equal(value, last.weights[f"net2d.{name}"])
        assert same or not network, name
    if not network:
        assert not torch.equal(start["conv1.0.weight"], last.weights["net2d.conv1.0.weight"])
    moved = {name for name in last.weights if not torch.equal(first.weights[name], last.weights[name])}
    assert {"net3d.fc.weight", "net3d.conv1.0.conv1.along_t.weight"} <= moved


def test_an_interrupted_training_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_SAVE_EVERY", -1.0)
    config = load_config(config_file(tmp_path))
    (tmp_path / "whole").mkdir()
    whole, _ = train(config, tmp_path / "whole", ("target",))

    def interrupt(line):
        if "epoch 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, ("target",), told=interrupt)
    assert list(tmp_path.glob("*.checkpoint"))
    rest, said = train(config, tmp_path, ("target",))
    assert ["epoch 1" in line for line in said].count(True) == 0
    assert [e["loss"] for e in rest.facts["curve"]] == pytest.approx([e["loss"] for e in whole.facts["curve"]])
    assert all(torch.equal(whole.weights[name], rest.weights[name]) for name in whole.weights)
    assert not list(tmp_path.glob("*.checkpoint"))


def test_it_runs_on_folders_of_videos_as_it_stands(tmp_path):
    """UCF-101's layout with its split files, and augmented; the accuracy is that of the clips that can be read."""
    from tests.data.videos import write_video

    for label in ("Archery", "Bowling"):
        for number in range(3):
            write_video(tmp_path / "videos" / label / f"v{number}.mp4", frames=12)
    (tmp_path / "videos" / "Archery" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "train.txt").write_text("Archery/v0.mp4 1\nArchery/v1.mp4 1\nBowling/v0.mp4 2\nBowling/v1.mp4 2\n")
    (tmp_path / "test.txt").write_text("Archery/v2.mp4\nBowling/v2.mp4\nArchery/broken.mp4\n")
    path = config_file(tmp_path, network="")
    text = path.read_text().replace("64", "48").replace('"digits:source"', f'"{(tmp_path / "videos").as_posix()}"')
    splits = (
        f'train_split = "{(tmp_path / "train.txt").as_posix()}"\ntest_split = "{(tmp_path / "test.txt").as_posix()}"'
    )
    path.write_text(
        text.replace("batch = 16", "batch = 2\nviews = 2", 1)
        .replace("size = 48", "size = 43")
        .replace("train_clips = 48\ntest_clips = 24", f"{splits}\nvideo = {{ mean = [0.5], step = 1 }}", 1)
    )
    trained, _ = train(load_config(path), tmp_path)
    facts = trained.facts
    assert (facts["classes"], facts["train_clips"], facts["test_clips"], facts["unreadable_test_clips"]) == (2, 4, 2, 1)
    assert len(facts["curve"]) == 2
    assert facts["top5"] == 1.0  # of two classes


def test_measuring_counts_right_answers(tmp_path):
    from benchmarks.accuracy.features import FeatureClips

    scores = torch.eye(6)[[0, 1, 2, 5]]
    clips = FeatureClips(scores, (0, 1, 3, 5), _Named())
    assert training.measure(torch.nn.Identity(), clips) == (0.75, 1.0, 4, 0)
    worst = FeatureClips(torch.arange(6.0).repeat(2, 1), (0, 5), _Named())
    assert training.measure(torch.nn.Identity(), worst) == (0.5, 0.5, 2, 0)


class _Named:
    classes, skipped = ("a",) * 6, ()

    def name(self, index):
        return str(index)


def test_inception_gives_the_2d_net_its_weights():
    from tests.zoo.models import _declare_torchvision_operators

    if "torchvision" not in sys.modules:
        _declare_torchvision_operators()
    from torchvision.models import inception_v3

    from edge4d.models.eco_lite import Net2d

    torch.manual_seed(0)
    theirs = inception_v3(weights=None, init_weights=False, aux_logits=False).eval()
    ours = Net2d().eval()
    weights = theirs.state_dict()
    ours.load_state_dict(from_inception(weights))
    frames = torch.rand(1, 3, 99, 99)
    names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    with torch.no_grad():
        x = frames
        for name in (*names, "maxpool2", "Mixed_5b", "Mixed_5c"):
            x = getattr(theirs, name)(x)
        x = theirs.Mixed_5d.branch3x3dbl_2(theirs.Mixed_5d.branch3x3dbl_1(x))
        torch.testing.assert_close(ours(frames), x)
    del weights["Mixed_5c.branch_pool.conv.weight"]
    with pytest.raises(edge4d.errors.UsageError, match=r"hold no Mixed_5c\.branch_pool\.conv\.weight"):
        from_inception(weights)


# ---- the log ------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """Trainings that take no time; the list holds those that were asked for."""
    asked = []

    def train_chain(config, chain, structure, seed, **_):
        asked.append((chain, structure, seed))
        facts = {"top1": 0.5, "test_clips": 100, "parameters": 10, "curve": []}
        return training.Trained({}, facts)

    monkeypatch.setattr(training, "train_chain", train_chain)
    return asked


def run(tmp_path, *more):
    places = ["--out", str(tmp_path / "log.jsonl"), "--folder", str(tmp_path / "weights")]
    return command.main([str(tmp_path / "tiny.toml"), *more, *places])


def test_a_rerun_skips_what_the_log_holds(tmp_path, counted, capsys):
    config_file(tmp_path)
    assert run(tmp_path, "--block", "conv3d") == 0
    assert counted == [(("source",), "conv3d", 0), (("target",), "conv3d", 0)]
    log = (tmp_path / "log.jsonl").read_text()
    assert run(tmp_path, "--block", "conv3d") == 0
    assert len(counted) == 2
    assert (tmp_path / "log.jsonl").read_text() == log
    assert run(tmp_path) == 0
    assert counted[2:] == [(("source",), "rank-1", 0), (("target",), "rank-1", 0)]
    assert (tmp_path / "log.jsonl").read_text().startswith(log)
    (tmp_path / "log.jsonl").write_text("".join(log.splitlines(keepends=True)[1:]))
    assert run(tmp_path, "--block", "conv3d") == 0
    assert counted[4:] == [(("source",), "conv3d", 0)]
    rows = record.read(tmp_path / "log.jsonl")
    assert {row["versions"]["torch"] for row in rows} == {torch.__version__}
    assert "Conv3D" in capsys.readouterr().out


def test_all_recipes_of_a_seed_come_before_the_next_seed(tmp_path, counted):
    config_file(tmp_path)
    config_file(tmp_path, "finetune", FINETUNE, name="second.toml")
    assert run(tmp_path, str(tmp_path / "second.toml"), "--seeds", "1", "0", "--block", "rank-1") == 0
    one = [(("source",), "rank-1"), (("target",), "rank-1"), (("source", "target"), "rank-1")]
    assert counted == [(*each, seed) for seed in (0, 1) for each in one]


def test_ctrl_c_keeps_what_is_finished(tmp_path, counted, monkeypatch, capsys):
    config_file(tmp_path)
    fast = training.train_chain

    def interrupted(config, chain, structure, seed, **rest):
        if (chain, structure) == (("target",), "conv3d"):
            raise KeyboardInterrupt
        return fast(config, chain, structure, seed, **rest)

    monkeypatch.setattr(training, "train_chain", interrupted)
    assert run(tmp_path) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(record.read(tmp_path / "log.jsonl")) == 1
    monkeypatch.setattr(training, "train_chain", fast)
    assert run(tmp_path) == 0
    assert len(record.read(tmp_path / "log.jsonl")) == len(counted) == 4


def test_another_day_goes_on_with_the_latest_log(tmp_path, counted, monkeypatch):
    config_file(tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    words = [str(tmp_path / "tiny.toml"), "--folder", str(tmp_path / "weights")]
    assert command.main(words) == 0
    (log,) = tmp_path.glob("accuracy-*-digits.jsonl")
    log.rename(tmp_path / "accuracy-2026-01-01-digits.jsonl")
    assert command.main(words) == 0
    assert [path.name for path in tmp_path.glob("accuracy-*")] == ["accuracy-2026-01-01-digits.jsonl"]
    assert len(counted) == 4


def test_one_log_does_not_mix_two_configurations(tmp_path, counted, capsys):
    path = config_file(tmp_path)
    assert run(tmp_path) == 0
    path.write_text(path.read_text().replace("epochs = 2", "epochs = 4"))
    assert run(tmp_path) == 2
    assert "as another configuration gave it" in capsys.readouterr().err
    assert len(counted) == 4


@pytest.mark.parametrize(
    ("line", "said"), [("{", "not JSON"), ("[]", "is no line"), ('{"schema": 1}', "lacks recipe, chain")]
)
def test_a_broken_log_is_refused_by_its_line(tmp_path, line, said):
    path = tmp_path / "log.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(edge4d.errors.UsageError, match=rf"log\.jsonl:1: {said}"):
        record.read(path)


# ---- the table ----------------------------------------------------------------------------------------------------


def row(recipe, chain, structure, top1, seed=0):
    return {
        "schema": 1, "recipe": recipe, "chain": chain, "structure": structure, "seed": seed, "key": "", "top1": top1,
        "test_clips": 1600, "parameters": 1234,
    }  # fmt: skip


KNOWN = [
    row("scratch", ["source"], "conv3d", 0.50, 0),
    row("scratch", ["source"], "conv3d", 0.54, 1),
    row("scratch", ["source"], "proposed-cat", 0.70, 0),
    row("scratch", ["source"], "proposed-cat", 0.74, 1),
    row("scratch", ["source"], "rank-1", 0.51, 0),
    row("scratch", ["source"], "rank-1", 0.51, 1),
    row("finetune", ["source", "target"], "conv3d", 0.9),
]


def test_the_table_of_a_known_log():
    assert tables.render(KNOWN) == (
        "| structure | parameters | source, from scratch | *Kinetics-400, Table III* | target, fine-tuned |"
        " *UCF-101, Table IV* |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| Conv3D | 1,234 | 52.0 ± 2.8 | *55.63* | 90.0 | *88.48* |\n"
        "| Proposed-Cat | 1,234 | 72.0 ± 2.8 | *59.41* |  | *91.21* |\n"
        "| Rank-1 | 1,234 | 51.0 ± 0.0 | *56.14* |  | *86.41* |\n"
        "\n"
        "- source, from scratch: 2 seeds; 2 of 3 pairs of structures stand in the paper's order, and 2 of the 2 pairs"
        " that lie further apart than their seeds do. Above Conv3D here: Proposed-Cat; in the paper: Proposed-Cat,"
        " Rank-1\n"
        "- target, fine-tuned: 1 seed\n"
        "- Top-1 in percent, mean ± standard deviation over seeds; 1600 test clips, on which chance alone moves a value"
        " near 80 % by 1.0 points."
    )


def test_the_papers_numbers_are_those_of_the_paper():
    for column in tables.COLUMNS:
        paper = dict(zip(blocks.names(), column.values, strict=True))
        best = {"Kinetics-400, Table III": "proposed-cat", "UCF-101, Table III": "proposed-add"}
        assert max(paper, key=paper.get) == best.get(column.paper, "proposed-cat")
        assert min(paper, key=paper.get) == ("conv3d" if "Kinetics" in column.paper else "rank-1")


def test_a_page_gets_its_table_between_its_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nafter\n")
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(entry) + "\n" for entry in KNOWN))
    assert command.main(["--out", str(log), "--docs", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- accuracy -->\n\n| structure |")
    assert text.endswith("- Log: `benchmarks/results/log.jsonl`.\n\n<!-- /accuracy -->\nafter\n")
    assert "old" not in text
    page.write_text("no markers\n")
    assert command.main(["--out", str(log), "--docs", str(page)]) == 2
    assert page.read_text() == "no markers\n"


def test_an_empty_log_makes_no_table(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "log.jsonl")]) == 2
    assert "holds no training" in capsys.readouterr().err
    with pytest.raises(edge4d.errors.UsageError, match="no training of the recipes"):
        tables.render([row("scratch", ["elsewhere"], "conv3d", 0.5)])


def test_every_recipe_file_can_be_read():
    assert {path.stem for path in HOME.glob("*.toml")} == {"scratch", "finetune", "scratch-videos", "finetune-videos"}
    for path in HOME.glob("*.toml"):
        assert load_config(path).chains
