"""Integers that follow from constants and known shapes, and lengths of lists where the numbers do not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge4d.validators.folding import fold
from edge4d.validators.lengths import infer_length
from edge4d.validators.values import Value


def known(array):
    array = np.asarray(array)
    kind = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
    return Value("k", kind, numpy_helper.from_array(array))


def sized(*shape, elem=TensorProto.INT64):
    return Value("v", helper.make_tensor_type_proto(elem, shape))


ROWS = [
    ("Shape", [sized(2, 3, 4)], {}, [2, 3, 4]),
    ("Shape", [sized(2, "n", 4)], {}, None),
    ("Shape", [sized(2, "n", 4)], {"start": -1}, [4]),
    ("Shape", [sized(2, 3, "n")], {"start": 0, "end": -1}, [2, 3]),
    ("Size", [sized(2, 3)], {}, 6),
    ("Size", [sized(2**40, 2**40)], {}, None),
    ("Gather", [known([5, 6, 7]), known(-1)], {}, 7),
    ("Gather", [known([5, 6, 7]), known([0, 2])], {}, [5, 7]),
    ("Gather", [known([5, 6, 7]), known(3)], {}, None),
    ("Gather", [sized(3), known(0)], {}, None),
    ("Concat", [known([1]), known([2, 3])], {"axis": 0}, [1, 2, 3]),
    ("Concat", [known(np.zeros(40, int)), known(np.zeros(40, int))], {"axis": 0}, None),
    ("Slice", [known([1, 2, 3]), known([1]), known([9])], {}, [2, 3]),
    ("Slice", [known([1, 2, 3]), known([-1]), known([-9]), known([0]), known([-1])], {}, [3, 2, 1]),
    ("Slice", [known([1, 2, 3]), known([0]), known([9]), known([0]), known([0])], {}, None),
    ("Slice", [known([1, 2, 3]), known([0]), sized(1)], {}, None),
    ("Unsqueeze", [known(4), known([0])], {}, [4]),
    ("Squeeze", [known([4])], {}, 4),
    ("Squeeze", [known([4, 5])], {}, None),
    ("Add", [known([1, 2]), known(3)], {}, [4, 5]),
    ("Sub", [known([1, 2]), known([1, 2, 3])], {}, None),
    ("Add", [known([1])], {}, None),
    ("Add", [known([1]), known([1]), known([1])], {}, None),
    ("Neg", [known([1]), known([1])], {}, None),
    ("Gather", [known([1])], {}, None),
    ("Slice", [known([1])], {}, None),
    ("Range", [known(0)], {}, None),
    ("Range", [known(0), known(3), known(1)], {}, [0, 1, 2]),
    ("Range", [known(0), known(3), known(0)], {}, None),
    ("Range", [known(0), known(2**60), known(1)], {}, None),
    ("ConstantOfShape", [known([2])], {"value": numpy_helper.from_array(np.array([7]))}, [7, 7]),
    ("ConstantOfShape", [known([2**40])], {"value": numpy_helper.from_array(np.array([7]))}, None),
    ("ConstantOfShape", [known([2])], {}, None),
    ("Cast", [known([2])], {"to": TensorProto.INT32}, [2]),
    ("Cast", [known([2])], {"to": TensorProto.FLOAT}, None),
    ("Relu", [known([2])], {}, None),
]


@pytest.mark.parametrize(("op", "inputs", "attributes", "expected"), ROWS)
def test_fold(op, inputs, attributes, expected):
    folded = fold(helper.make_node(op, ["a"] * len(inputs), ["y"], **attributes), inputs)
    if expected is None:
        assert folded is None
    else:
        assert numpy_helper.to_array(folded).tolist() == expected


def test_operators_of_other_domains_are_not_folded():
    assert fold(helper.make_node("Add", ["a", "a"], ["y"], domain="vendor"), [known(1), known(1)]) is None


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [
        ("Shape", [sized("a", "b", "c")], {}, 3),
        ("Shape", [sized("a", "b", "c")], {"start": 1, "end": -1}, 1),
        ("Concat", [sized(2), sized(3)], {"axis": 0}, 5),
        ("Concat", [sized(2), sized("n")], {"axis": 0}, None),
        ("Concat", [sized(2**62), sized(2**62), sized(2**62)], {"axis": 0}, None),
        ("Gather", [sized("n"), sized(4)], {}, 4),
        ("Gather", [sized("n", 3), sized(4)], {}, None),
        ("Slice", [sized(5), known([1]), known([3])], {}, 2),
        ("Slice", [sized(5), sized(1), known([3])], {}, None),
        ("Slice", [sized(5), known([4]), known([-9]), known([0]), known([-2])], {}, 3),
        ("Unsqueeze", [sized(), known([0])], {}, 1),
        ("Mul", [sized(4), sized()], {}, 4),
        ("Mul", [sized(4), sized("n")], {}, None),
        ("Mul", [sized(0), sized(1)], {}, None),
        ("Cast", [sized(4)], {"to": 1}, 4),
        ("NonZero", [sized(4)], {}, None),
    ],
)
def test_lengths(op, inputs, attributes, expected):
    assert infer_length(helper.make_node(op, ["a"] * len(inputs), ["y"], **attributes), inputs) == expected
