# The index of everything one can do here: `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CACHE := .cache
SOURCES := $(shell find src native -type f -not -name '*.pyc' -not -name '*.so' 2>/dev/null)
DEPENDENCIES := $(VENV)/.dependencies
INSTALLED := $(VENV)/.installed
BESIDE := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help demo test test-slow test-gpu soak test-sanitize lint format bench accuracy clean fuzz

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(INSTALLED)  ## EfficientNet-Lite0 on 20 photos in private, then a cheating device
	@$(BIN)/slalom eval efficientnet_lite0 --protection private --batch-size 5 --batches 4
	@echo; echo "the same with a device that changes one bit of one result:"
	@$(BIN)/slalom eval efficientnet_lite0 --protection private --batch-size 5 --batches 4 --attack flip_element; \
		status=$$?; test $$status -eq 3 && echo "refused with exit code 3, as it must be"

test: $(INSTALLED)  ## the test suite: no GPU, no TEE, some ten minutes on two cores
	$(BIN)/python -m pytest -m "not slow and not gpu and not tee" $(BESIDE)

test-slow: $(INSTALLED)  ## the long sweeps: whole zoo, long statistics, accuracy
	$(BIN)/python -m pytest -m "slow and not gpu" --timeout 3600 $(BESIDE)

test-gpu: $(INSTALLED)  ## the kernels and the CUDA device, on a GPU
	$(BIN)/python -m pytest -m gpu

soak: $(INSTALLED)  ## 2,000 requests to workers of which every tenth goes wrong
	$(BIN)/python -m pytest -s -m slow tests/fleet/test_soak.py --timeout 3600

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrite the files as ruff would have them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## plain engines, every level and the kernels, measured here
	$(BIN)/slalom bench efficientnet_lite0

accuracy: $(INSTALLED)  ## Fashion-MNIST: accuracy lost to integers, at every level
	$(BIN)/python examples/fashion_mnist.py --cache $(CACHE)

test-sanitize: $(INSTALLED)  ## the kernels' tests under address and undefined-behaviour sanitizers
	bash native/sanitize.sh $(BIN)/python

fuzz: $(INSTALLED)  ## every decoder, for ten minutes each
	$(BIN)/python -m pytest tests/fuzz --fuzz-seconds 600 --timeout 1200

clean:  ## remove everything that was made
	rm -rf $(VENV) build $(CACHE) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(DEPENDENCIES): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt scikit-build-core nanobind cmake ninja
	$(PIP) install -c constraints.txt --no-build-isolation ".[dev]"
	@touch $@

$(INSTALLED): $(DEPENDENCIES) $(SOURCES)
	$(PIP) install --no-build-isolation --no-deps .
	@touch $@
