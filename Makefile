# make quickstart   the whole trip on a data set that needs no download
# make test         the tests
# make test-slow    the checks that take minutes
# make check        the gate for people and CI: format, lint, types, import rules, tests
#
# Each of them makes the environment first, where it is missing or out of date.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
QUICK  := runs/quickstart

.PHONY: quickstart test test-slow check lint format schemas clean
.DELETE_ON_ERROR:

quickstart: $(STAMP)
	$(BIN)/edgexfer quickstart --out $(QUICK)
	@echo "report: $(abspath $(QUICK))/report.html"

# Two processes share the cores of a small machine best with one thread each.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: lint test

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

schemas: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_schemas.py --regen

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The stamp is written last, so that an installation that was broken off is begun again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "edgexfer needs Python 3.10 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
