# The two commands: `make demo` shows it, `make test` proves it. Both make their own virtual environment first.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
# More than most processors: the suite waits for sockets and processes more than it computes.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Python compiles what it imports; compiling all that is installed takes as long as installing it.
INSTALL := $(PIP) install --no-compile

# The oldest of everything that pyproject.toml allows, on a Python for which all of it was made.
OLDEST ?= .venv-oldest
OLDEST_PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo $(PYTHON))
OLDEST_TESTS := $(patsubst %,tests/test_%.py,accessor client joining options schema price_list pricing store wire)

# The suite starts hundreds of processes: each would compile all it imports where nothing may be kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test docs release-check lint lab bench test-full soak kernels oldest mutants live clean

help:
	@echo "make demo       the whole way on real rows, offline, without a key"
	@echo "make test       lint, types and every test (make lint: the first two alone)"
	@echo "make docs       the documentation, into build/docs/index.html"
	@echo "make lab        JupyterLab on the notebooks"
	@echo "make bench      the measurements"
	@echo "make test-full  the long form of the harnesses; make soak: hours of the same"
	@echo "make kernels    the panel on older notebook kernels"
	@echo "make oldest     the demo and a tenth of the tests on the oldest of everything that pyproject.toml allows"
	@echo "make release-check  wheel and sdist, built, checked, and installed where nothing else is"
	@echo "make mutants    300 small faults in the rooms that hold money: the tests have to see them (an hour)"
	@echo "make live       a check against the real API (asks before it spends; under one cent)"

demo: $(VENV)/.package
	@$(BIN)/python -m pandas_batch demo

lint: $(VENV)/.developing
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing_api.py
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

# pytest comes last: its summary line closes the output.
test: lint
	@$(PYTEST) $(PYTEST_ARGS)

test-full: $(VENV)/.developing
	@$(PYTEST) -m "not soak and not kernels" $(PYTEST_ARGS)

soak: $(VENV)/.developing
	@$(PYTEST) -m soak $(PYTEST_ARGS)

kernels: $(VENV)/.developing
	@$(PYTEST) -m kernels $(PYTEST_ARGS)

oldest: $(OLDEST)/.made
	@$(OLDEST)/bin/python -m pandas_batch demo > $(OLDEST)/demo.txt || { cat $(OLDEST)/demo.txt; exit 1; }
	@# When the sockets of old versions of others are collected is not what is tested here; make test does look.
	@$(OLDEST)/bin/python -m pytest -n $(WORKERS) -W ignore::pytest.PytestUnraisableExceptionWarning $(OLDEST_TESTS)

release-check: $(VENV)/.developing
	@$(INSTALL) --group release
	@$(BIN)/python tests/release_check.py $(RELEASE_ARGS)

mutants: $(VENV)/.developing
	@$(INSTALL) --group mutation
	@$(BIN)/python tests/mutants.py $(MUTANTS_ARGS)

docs: $(VENV)/.developing
	@rm -rf build/docs
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs
	@echo "build/docs/index.html"

lab: $(VENV)/.developing
	$(BIN)/jupyter lab notebooks

bench: $(VENV)/.developing
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

live: $(VENV)/.package
	@$(BIN)/python -m pandas_batch.live

clean:
	rm -rf $(VENV) $(OLDEST) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.package: $(VENV)/.made pyproject.toml
	@echo "Installing pandas-batch and what it needs ..."
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.made pyproject.toml
	@echo "Installing pandas-batch and what its tests need ..."
	@# Dependency groups are read by pip from 25.1 on; a venv starts with the pip of its Python.
	@$(INSTALL) --upgrade "pip>=25.1"
	@$(INSTALL) --editable . --group dev
	@touch $@ $(VENV)/.package

$(OLDEST)/.made: pyproject.toml tests/oldest.py
	@echo "Making a virtual environment of the oldest versions in $(OLDEST) ..."
	@$(OLDEST_PYTHON) -m venv --clear $(OLDEST)
	@$(OLDEST_PYTHON) tests/oldest.py > $(OLDEST)/oldest.txt
	@$(OLDEST)/bin/python -m pip --quiet --disable-pip-version-check install --no-compile --editable ".[all]" \
		pytest pytest-xdist hypothesis jsonschema openpyxl --constraint $(OLDEST)/oldest.txt
	@touch $@
