"""docs/models.md names the operators that are imported, all of them and no others."""

import re
from pathlib import Path

from edge4d.loading.onnx.reading import OPSETS
from edge4d.loading.onnx.registry import known

TEXT = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_list_of_operators():
    listed = re.search(r"<!-- operators:.*?-->\n(.*?)\n<!-- end -->", TEXT, re.S)[1]
    assert tuple(listed.replace("\n", " ").split(", ")) == known()


def test_the_operator_sets():
    assert f"Operator sets {OPSETS[0]} to {OPSETS[1]} are imported" in TEXT
