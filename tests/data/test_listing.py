"""Which videos a data set has: folders of classes, split files of UCF-101, lists; and what is not there."""

from __future__ import annotations

import pytest

from edge4d.data.listing import list_folder, list_table
from edge4d.data.opening import open_source
from edge4d.data.source import ClipSpec
from edge4d.errors import UsageError

SPEC = ClipSpec(shape=(3, 4, 16, 16))


@pytest.fixture
def folder(tmp_path):
    for name in (
        "Archery/v_Archery_g01.avi",
        "Archery/v_Archery_g02.avi",
        "Bowling/v_Bowling_g01.avi",
        "Bowling/a.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_folders_are_classes(folder):
    files, classes, missing = list_folder(folder)
    assert classes == ("Archery", "Bowling")
    assert [(file.name, file.label) for file in files] == [
        ("Archery/v_Archery_g01.avi", 0),
        ("Archery/v_Archery_g02.avi", 0),
        ("Bowling/v_Bowling_g01.avi", 1),
    ]
    assert missing == []


def test_a_folder_of_videos_has_no_labels(tmp_path):
    (tmp_path / "a.mp4").touch()
    files, classes, _ = list_folder(tmp_path)
    assert classes is None
    assert files[0].label is None


def test_a_split_file_chooses(folder, tmp_path):
    split = tmp_path / "trainlist01.txt"
    split.write_text("Bowling/v_Bowling_g01.avi 2\nArchery/v_Archery_g02.avi 1\nArchery/v_Archery_g09.avi 1\n")
    files, classes, missing = list_folder(folder, split)
    assert [file.label for file in files] == [1, 0]
    assert classes == ("Archery", "Bowling")  # of the whole folder, so that train and test agree
    assert missing == [("Archery/v_Archery_g09.avi", "listed in trainlist01.txt, not there")]


def test_a_list_of_paths_and_labels(folder):
    table = folder / "list.csv"
    for text in (
        "Archery/v_Archery_g01.avi,1\nBowling/v_Bowling_g01.avi,0\ngone.avi,4\n",
        "Archery/v_Archery_g01.avi 1\nBowling/v_Bowling_g01.avi 0\ngone.avi 4\n",
    ):
        table.write_text(text)
        files, classes, missing = list_table(table)
        assert [file.label for file in files] == [1, 0]
        assert classes == ("0", "1", "2", "3", "4")
        assert missing == [("gone.avi", "listed in list.csv, not there")]


def test_names_as_labels(folder):
    table = folder / "list.csv"
    table.write_text("Archery/v_Archery_g01.avi,shoot\nBowling/v_Bowling_g01.avi,bowl\n")
    files, classes, _ = list_table(table)
    assert classes == ("bowl", "shoot")
    assert [file.label for file in files] == [1, 0]


def test_the_official_kinetics_list(tmp_path):
    (tmp_path / "clay pottery").mkdir()
    (tmp_path / "clay pottery" / "abc_000010_000020.mp4").touch()
    (tmp_path / "x-y.mp4").touch()
    (tmp_path / "val.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "clay pottery,abc,10,20,val\nbowling,x-y,3,13,val\nbowling,zz,1,11,val\n"
    )
    files, classes, missing = list_table(tmp_path / "val.csv")
    assert classes == ("bowling", "clay pottery")
    assert [(file.name, file.label) for file in files] == [("abc_000010_000020.mp4", 1), ("x-y.mp4", 0)]
    assert [name for name, _ in missing] == ["zz_000001_000011.mp4"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "", "an empty list"),
        ("list.csv", "a.mp4,1,2\nb.mp4,2\n", "1 of 2 lines are not a path and a label"),
        ("list.csv", "a.mp4,1\n", "none of its 1 videos is there, the first: a.mp4"),
        ("model.onnx", "x", "not something to read clips from"),
    ],
)
def test_bad_lists(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        open_source(tmp_path / name, SPEC)


def test_bad_folders(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UsageError, match="no video in this folder"):
        open_source(empty, SPEC)
    with pytest.raises(UsageError, match="no such file or folder"):
        open_source(empty / "gone", SPEC)
    split = empty / "split.txt"
    split.write_text("Nothing/here.avi 1\n")
    with pytest.raises(UsageError, match="none of its 1 videos is there"):
        open_source(folder, SPEC, split)
    (folder / "stray.mp4").touch()
    with pytest.raises(UsageError, match="1 videos lie beside the folders of classes"):
        open_source(folder, SPEC)
