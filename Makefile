PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
KAFKA_JARS := .kafka/libs/.pom.sha256
NODE_MODULES := tools/node/node_modules/.installed
LAB_MODULES := labextension/node_modules/.installed
LAB_BUILT := exec_events/labextension/package.json
LAB_SOURCES := $(wildcard labextension/*.json labextension/src/* labextension/style/* labextension/schema/*)
LAB_LINKED := $(VENV)/share/jupyter/labextensions/exec-events

.PHONY: help labextension labextension-if-possible demo screenshot test soak lint docs bench broker hub hub-clean clean programs broker-programs node-programs

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s "$$(printf '\t')"

$(INSTALLED): pyproject.toml integrations/learning_observer/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "exec-events needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "install Python's venv first: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[test]"
	$(BIN)/pip install --quiet --no-deps --editable integrations/learning_observer
	@# Dash brings an extension of the old kind, for which JupyterLab would ask everybody to build it anew.
	@rm -f $(VENV)/share/jupyter/lab/extensions/dash-jupyterlab.tgz
	$(BIN)/python -m bash_kernel.install --sys-prefix >/dev/null
	@touch $@

# What Python's packages do not bring: for tests, and for benchmarks, which need Kafka alone.
programs:
	@tools/install_system.sh

broker-programs:
	@tools/install_system.sh java mvn

node-programs:
	@tools/install_system.sh node npm

# Fetched here and not by the first test, whose time is bounded.
$(KAFKA_JARS): tools/kafka_broker/pom.xml | $(INSTALLED) broker-programs
	@$(BIN)/python -m tools.kafka_broker --fetch
	@touch $@

$(NODE_MODULES): tools/node/package.json tools/node/package-lock.json | node-programs
	@echo "fetching what tests run with node (once)"
	@cd tools/node && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(LAB_MODULES): labextension/package.json labextension/package-lock.json
	@tools/install_system.sh node npm
	@echo "fetching what the JupyterLab extension is built with (once)"
	@cd labextension && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(LAB_BUILT): $(LAB_MODULES) $(LAB_SOURCES)
	@cd labextension && npm run --silent build
	@touch $@

# An editable install brings no extension: JupyterLab is shown where the built one is.
$(LAB_LINKED): | $(INSTALLED)
	@mkdir -p $(@D)
	@ln -sfn "$(CURDIR)/$(dir $(LAB_BUILT))" $@

labextension: $(LAB_BUILT) $(LAB_LINKED)  ## the JupyterLab extension, built, and linked into the environment

# The demo is for machines without Node.js too.
labextension-if-possible:
	@if tools/install_system.sh node npm 2>/dev/null; then $(MAKE) --no-print-directory labextension; \
		else echo "no Node.js 18 here: JupyterLab will show no marks"; fi

demo: $(INSTALLED) labextension-if-possible  ## record a notebook, verify it, and open JupyterLab (ONCE=1: stop at the end)
	ONCE="$(ONCE)" $(BIN)/python demo/demo.py

screenshot: $(INSTALLED)  ## docs/images/dashboard.png, of a class that is made up
	@tools/install_system.sh chromium
	$(BIN)/python tools/screenshot.py

test: $(INSTALLED) programs $(KAFKA_JARS) $(NODE_MODULES) labextension  ## every test
	$(BIN)/python -m pytest -m "not soak" $(ARGS)

soak: $(INSTALLED) programs $(KAFKA_JARS) $(NODE_MODULES)  ## the long runs: kills by the dozen, executions by the thousand
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

lint: $(INSTALLED) $(LAB_MODULES)  ## style, types, layers, and whether what is generated is fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/exec-events schemas check
	cd labextension && npm run --silent lint

docs: $(INSTALLED)  ## the documentation, warnings being errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(INSTALLED) $(KAFKA_JARS)  ## what recording costs, beside a server without it (ARGS="--quick --json")
	$(BIN)/python -m benchmarks $(ARGS)

broker: $(INSTALLED)  ## Apache Kafka on 127.0.0.1 until Ctrl-C (NODES=3: three nodes)
	@$(BIN)/python -m tools.kafka_broker --nodes $(or $(NODES),1) $(ARGS)

hub: $(NODE_MODULES) $(LAB_BUILT)  ## JupyterHub on 127.0.0.1 until Ctrl-C, everybody recorded (USERS="ada ben" makes accounts; PORT=8001)
	@$(PYTHON) -m tools.hub --users "$(USERS)" $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config $(CONFIG)) $(ARGS)

hub-clean:  ## remove the accounts that make hub made, its records and its software
	@$(PYTHON) -m tools.hub --clean $(ARGS)

clean:  ## remove what was built
	rm -rf $(VENV) .demo .kafka tools/node/node_modules labextension/node_modules labextension/lib exec_events/labextension dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
