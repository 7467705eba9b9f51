# edge4d: `make demo` shows it, `make test` tests it; both set up .venv by themselves.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= auto
export OMP_NUM_THREADS ?= 1
# The tests start hundreds of processes, and every worker rewrites the tests' asserts: compiled once, not every time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-slow test-lowest setup-lowest docker-test check lint types format wheel fuzz bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## create .venv with the pinned packages

$(VENV)/.ready: pyproject.toml constraints.txt tests/zoo/requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt setuptools wheel
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	$(PIP) install -q --no-deps -r tests/zoo/requirements.txt
	@touch $@

demo: setup  ## export, verify, compare and time a trained network
	env -u OMP_NUM_THREADS $(BIN)/python -m examples.moving_digits.demo

# Each worker begins with files of its own, whose fixtures are made once, and takes from the other when it is done.
test: setup  ## the tests, in minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow'

# Tests of one network stay in one worker, which prepares it once.
test-slow: setup  ## real networks and large files
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m slow

# What meets the other packages; the algebra and the rules below it meet torch alone, which has one tested version.
LOWEST := tests/test_exporting.py tests/test_artifact.py tests/test_checking.py tests/validators tests/exporters

test-lowest: setup-lowest  ## the oldest versions that pyproject.toml admits
	.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow and not newest' $(LOWEST)

setup-lowest: .venv-lowest/.ready

# After the wheel, which is made in the same edge4d.egg-info: the two may be asked for at once.
.venv-lowest/.ready: pyproject.toml constraints-lowest.txt | wheel
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install -q -c constraints-lowest.txt setuptools wheel
	.venv-lowest/bin/python -m pip install -q -c constraints-lowest.txt -e '.[test]'
	@touch $@

docker-test:  ## build and run the CPU and RKNN images; BASE=, TORCH_INDEX=, TOOL=, BUILD_ARGS=
	docker/test.sh cpu rknn

check: lint types test  ## what CI runs, without the slow tests

lint: setup  ## ruff and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint docker/Dockerfile docker/rknn.Dockerfile docker/tensorrt.Dockerfile

format: setup  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: setup  ## build dist/*.whl
	rm -rf dist build
	$(BIN)/python -m build --wheel --no-isolation -o dist . >/dev/null

types: wheel  ## mypy strict on the built wheel
	rm -rf build/types && mkdir -p build/types
	$(PIP) install -q --no-deps --target build/types dist/*.whl
	cd build/types && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p edge4d

RUNS ?=
MINUTES ?= 10
fuzz: setup  ## broken models against the gate, for MINUTES=10 or RUNS=1000; SEED=n starts elsewhere
	$(BIN)/python -m tests.fuzz.fuzz_gate --minutes $(MINUTES) $(if $(RUNS),--runs $(RUNS)) --seed $(or $(SEED),0)

RUNTIME ?= onnxruntime
bench: setup  ## the 4-D graph against native 5-D and eager PyTorch, into docs/performance.md; RUNTIME=openvino
	env -u OMP_NUM_THREADS $(BIN)/python -m benchmarks.run --runtime $(RUNTIME)
	env -u OMP_NUM_THREADS $(BIN)/python -m benchmarks.scaling --runtime $(RUNTIME)
	$(BIN)/python -m benchmarks.page

clean:  ## remove what was built
	rm -rf build dist out .venv-lowest *.egg-info
