"""An interpreter with a toolkit that speaks as Rockchip's does: same calls, same log, same ways to fail.

`install` writes the package and a script that starts this very interpreter with it. What the fake does is told by the
environment variable ``FAKE_RKNN``. Its numbers are ONNX Runtime's, rounded to float16 on the way in and out.
"""

from __future__ import annotations

import sys
from pathlib import Path

API = '''
"""A fake of rknn.api, for tests."""
import ctypes, os, sys, time
import numpy as np
import onnx, onnxruntime

MODE = os.environ.get("FAKE_RKNN", "works")
FAILED = """Traceback (most recent call last):
  File "rknn/api/rknn_log.py", line 344, in rknn.api.rknn_log.error_catch_decorator.error_catch_wrapper
  File "rknn/api/rknn_base.py", line 2066, in rknn.api.rknn_base.RKNNBase.{where}
    something = of_its_own()
{kind}: {text}
"""
RULE = "D RKNN: [07:02:35.238] " + "-" * 60


def say(text):
    sys.stdout.write(text + "\\n")


class RKNN:
    def __init__(self, verbose=False, verbose_file=None):
        self.verbose = verbose
        say("I rknn-toolkit2 version: 2.5.0")

    def config(self, target_platform=None, optimization_level=3, **unknown):
        if unknown:
            raise TypeError("config() got an unexpected keyword argument %r" % min(unknown))
        self.level = optimization_level
        if not isinstance(optimization_level, int):
            self.fail("config", "ValueError", "optimization_level should be in [0, 1, 2, 3]!")
        return 0

    def fail(self, where, kind, text):
        say("\\x1b[1;31mE\\x1b[0m \\x1b[1;31m%s: %s\\x1b[0m" % (where, text))
        raise ValueError(FAILED.format(where=where, kind=kind, text=text))

    def load_onnx(self, model):
        open("check0_base_optimize.onnx", "wb").write(b"left behind")
        self.model, self.path = onnx.load(model), model
        for value in self.model.graph.input:
            if any(not d.HasField("dim_value") for d in value.type.tensor_type.shape.dim):
                self.fail("load_onnx", "ValueError", "The input shape of %r is not support!" % value.name)
        return 0

    def build(self, do_quantization=True, dataset=None):
        if MODE == "hangs":
            say("I rknn building ...")
            sys.stdout.flush()
            time.sleep(600)
        if MODE == "crashes":
            say("E RKNN: [07:02:35.238] about to crash")
            sys.stdout.flush()
            ctypes.string_at(0)
        if MODE == "answers with a code":
            say("E RKNN: [07:02:35.238] failed to build layer Conv:7, the weights are too large")
            return -1
        if MODE == "leaves":
            say("E RKNN: [07:02:35.238] cannot go on")
            sys.exit(1)
        if MODE == "disk full":
            raise ValueError("[Errno 28] No space left on device: 'check.rknn'")
        try:
            self.session = onnxruntime.InferenceSession(self.path)
        except Exception as error:
            self.fail("build", "onnxruntime.capi.InvalidGraph", str(error))
        if self.verbose and MODE != "says nothing":
            self.tell()
        return 0

    def tell(self):
        given = self.model.graph.input[0]
        shape = "(%s)" % ",".join(str(d.dim_value) for d in given.type.tensor_type.shape.dim)
        if MODE == "makes five axes":
            shape = "(1," + shape[1:]
        row = "D RKNN: [07:02:35.238] %-4d %-18s FLOAT16  %s    %-30s %-22s %-22s %-12s %s"
        say("D RKNN: [07:02:35.238]            Network Layer Information Table           ")
        say(RULE)
        say("D RKNN: [07:02:35.238] ID   OpType  DataType Target InputShape  OutputShape  "
            "Cycles(DDR/NPU/Total)    RW(KB)       FullName        ")
        say(row % (0, "InputOperator", "CPU", chr(92), shape, "0/0/0", "0", "InputOperator:" + given.name))
        for i, node in enumerate(self.model.graph.node):
            target = "CPU" if node.op_type == "Relu" else "NPU"
            name = "%s:%s_rs" % (node.op_type, node.output[0])
            say(row % (i + 1, node.op_type, target, shape, shape, "10/20/20", "6272", name))
        say(row % (9, "OutputOperator", "CPU", shape, chr(92), "0/0/0", "6272", "OutputOperator:y"))
        say(RULE)
        say("E RKNN: [07:02:35.238] Unkown op target: 0")
        for offset in (0x5048, 0x5049, 0x504a) if MODE == "exceeds registers" else ():
            say("E RKNN: [07:02:35.238] REGTASK: The bit width of field value exceeds the limit, "
                "offset: 0x%x, value: 0x4210" % offset)
        say("D RKNN: [07:02:35.239]       Feature Tensor Information Table       ")
        say("D RKNN: [07:02:35.239] Total Internal Memory Size: 30576KB")
        say("D RKNN: [07:02:35.239] Total Weight Memory Size: 218.688KB")

    def export_rknn(self, path):
        if MODE != "writes nothing":
            with open(path, "wb") as file:
                file.write(b"RKNN" + os.urandom(8) + self.model.SerializeToString())
        return 0

    def init_runtime(self, target=None):
        return 0

    def inference(self, inputs, data_format=None):
        assert data_format == ["nchw"] * len(inputs)
        if MODE == "runs into nothing":
            say("\\x1b[1;31mE\\x1b[0m \\x1b[1;31minference: The runtime has not been initialized\\x1b[0m")
            return None
        if MODE == "crashes in run":
            ctypes.string_at(0)
        names = [value.name for value in self.session.get_inputs()]
        rounded = [array.astype(np.float16).astype(array.dtype) for array in inputs]
        found = self.session.run(None, dict(zip(names, rounded)))
        return [array.astype(np.float16).astype(array.dtype) for array in found]

    def release(self):
        pass
'''

METADATA = "Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: 2.5.0\n"


ALL = ("rknn", "pkg_resources", "onnxruntime")


def install(folder: Path, *, packages: tuple[str, ...] = ALL, python: str = sys.executable) -> Path:
    """Write the fake.

    Args:
        folder: a new one.
        packages: what the interpreter is to have of it.
        python: what runs it.

    Returns:
        The script that stands for the interpreter.
    """
    place = folder / "packages"
    place.mkdir(parents=True)
    hidden = set(ALL) - set(packages)
    for name in set(packages) - {"onnxruntime"}:  # that one is real, and at most hidden
        (place / name).mkdir()
        (place / name / "__init__.py").write_text("")
    if "rknn" in packages:
        (place / "rknn" / "api").mkdir()
        (place / "rknn" / "api" / "__init__.py").write_text(API)
        (place / "rknn_toolkit2-2.5.0.dist-info").mkdir()
        (place / "rknn_toolkit2-2.5.0.dist-info" / "METADATA").write_text(METADATA)
    # Whatever this interpreter has of them is hidden.
    (place / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({sorted(hidden)!r}))\n")
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{place}" exec "{python}" "$@"\n')
    script.chmod(0o755)
    return script
