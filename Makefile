PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test soak lint docs bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | column -t -s "$$(printf '\t')"

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "exec-events needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "install Python's venv first: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[test]"
	$(BIN)/python -m bash_kernel.install --sys-prefix >/dev/null
	@touch $@

demo: $(INSTALLED)  ## record a notebook, verify it, and open JupyterLab (ONCE=1: stop at the end)
	ONCE="$(ONCE)" $(BIN)/python demo/demo.py

test: $(INSTALLED)  ## every test
	$(BIN)/python -m pytest -m "not soak" $(ARGS)

soak: $(INSTALLED)  ## the long runs: kills by the dozen, executions by the thousand
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

lint: $(INSTALLED)  ## style, types, layers, and whether what is generated is fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/exec-events schemas check

docs: $(INSTALLED)  ## the documentation, warnings being errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(INSTALLED)  ## what recording costs, beside a server without it (ARGS="--quick --json")
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove what was built
	rm -rf $(VENV) .demo dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
