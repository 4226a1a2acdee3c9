# What a person types here. Every target says what it does under `make help`; all of them can be
# run again at any time and do only what is out of date.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -W error --dist loadfile --max-worker-restart 0
# What mypy found out holds in the next checkout too: it compares what files say, not where they are.
export MYPY_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(shell echo ~)/.cache)/stockify/mypy
# Where it is set, each of the hundreds of processes of the tests compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALL_INPUTS := pyproject.toml constraints.txt setup/venv.sh setup/kept-venv.sh

# Empty files that say when a step was last done; they live in what the step makes, so that
# removing that removes them too.
INSTALLED := $(VENV)/.installed
INSTALLED_FOR_TESTS := $(VENV)/.installed-for-tests
INSTALLED_FOR_BENCH := $(BENCH_VENV)/.installed

.PHONY: help up setup page kernels test lint setup-bench docs lock clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# On a terminal a job of its own: Ctrl-C reaches it and not make, which then ends as it does.
up: setup ## install what is missing, then start the whole pipeline (Ctrl-C stops it)
	@[ -t 0 ] || exec $(BIN)/stockify up; set -m; $(BIN)/stockify up; true

setup: $(INSTALLED) page kernels ## the install alone: .venv, the page, the compiled kernels

# Most tests wait for servers, timers and processes more than they calculate: more of them at once
# than a small machine has processors, and the whole instances three at a time.
test: $(INSTALLED_FOR_TESTS) page ## install what the tests need, then run every check
	@setup/test-needs.sh
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint kernels
	@$(PYTEST) --numprocesses 4 tests/unit tests/integration
	@$(PYTEST) --numprocesses 3 tests/acceptance

lint: $(INSTALLED_FOR_TESTS) ## formatting, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

setup-bench: $(INSTALLED_FOR_BENCH) ## install what the benches measure against, into .venv-bench

docs: $(INSTALLED) ## write settings, leg table and schemas of docs/ again from the code
	@$(BIN)/python -m stockify.reference

lock: ## resolve the newest allowed packages and write constraints.txt
	@setup/lock.sh

clean: ## remove everything that the other targets made in this checkout
	rm -rf $(VENV) $(BENCH_VENV) api/web/dist api/web/node_modules build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): $(INSTALL_INPUTS)
	@setup/venv.sh $(VENV) --editable .
	@touch $@

$(INSTALLED_FOR_TESTS): $(INSTALL_INPUTS)
	@setup/kept-venv.sh $(VENV) --editable '.[test]'
	@touch $(INSTALLED) $@

# Peers are not held to constraints.txt: they are measured as their own users install them.
$(INSTALLED_FOR_BENCH): setup/bench-requirements.txt setup/venv.sh
	@CONSTRAINTS= setup/kept-venv.sh $(BENCH_VENV) --requirement setup/bench-requirements.txt
	@command -v redis-benchmark >/dev/null || setup/test-needs.sh redis
	@touch $@

page: $(INSTALLED) # keeps its own record of what it was built from
	@$(BIN)/python -m stockify.page

kernels: $(INSTALLED) # and so do these
	@$(BIN)/stockify warmup
