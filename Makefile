# Everything is set up in .venv. Each stamp in it is newer than what it was installed from, so a second run installs nothing.

# The first of these that is Python 3.11 or newer and can create environments makes .venv; `make test PYTHON=...` overrides.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11 python
# Test processes. Each runs torch on one thread: on small problems more threads cost more than they give.
WORKERS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
DEMO := .venv/installed-for-demo
CHECKS := .venv/installed-for-checks

.PHONY: help demo test lint bench clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO) ## Choose a ridge penalty on real data by bi-level optimization, under a minute
	$(BIN)/argminlayer run bilevel

test: lint ## Run every check: linter, formatter, types, tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

lint: $(CHECKS) ## Run the linter, the formatter's check and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(CHECKS) ## Run the benchmarks, one after the other
	@set -e; for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script"; done

clean: ## Remove the environment, caches and built packages
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO): .venv/created pyproject.toml constraints.txt
	@echo "Installing into .venv; the first time torch is downloaded, which takes some minutes."
	@$(PIP) install --constraint constraints.txt --editable '.[bilevel]'
	@touch $@

# What the checks need includes what the demo needs.
$(CHECKS): .venv/created pyproject.toml constraints.txt
	@echo "Installing into .venv; the first time torch is downloaded, which takes some minutes."
	@$(PIP) install --constraint constraints.txt --editable '.[all,dev]'
	@touch $(DEMO) $@

# Debian and Ubuntu ship Python without ensurepip, which `-m venv` needs; that is found out before anything is written.
.venv/created:
	@for python in $(PYTHON); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	        "$$python" -m venv --clear .venv && touch $@; exit; \
	    fi; \
	    package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	    echo "$$python cannot create environments: ensurepip is missing. On Debian or Ubuntu: apt install $$package" >&2; \
	done; \
	echo "No usable Python among: $(PYTHON). Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; \
	exit 1
