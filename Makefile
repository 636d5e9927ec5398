# `make bench` and `make test` set themselves up: they create .venv and install the package with pinned dependencies.
# PIP_ARGS goes to pip, for example PIP_ARGS="--extra-index-url URL" where torch comes from an index of CPU builds.

PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3,$(shell \
	$(python) -c 'import sys; print(sys.executable if (3, 11) <= sys.version_info < (3, 13) else "")' 2>/dev/null)))
PIP_ARGS ?=
VENV := .venv
STAMP := $(VENV)/.installed
# Isaac Lab 3 runs on Python 3.12 only and pins what the rest has newer, so it has an environment of its own.
ISAACLAB_PYTHON ?= $(firstword $(foreach python,python3.12 python3,$(shell \
	$(python) -c 'import sys; print(sys.executable if sys.version_info[:2] == (3, 12) else "")' 2>/dev/null)))
ISAACLAB_VENV := .venv-isaaclab
ISAACLAB_STAMP := $(ISAACLAB_VENV)/.installed

.PHONY: bench test isaaclab lint format clean

bench: $(STAMP)
	$(VENV)/bin/dexcompose bench

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

isaaclab: $(ISAACLAB_STAMP)
	$(ISAACLAB_VENV)/bin/python -m pytest tests/isaaclab

lint: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

format: $(STAMP)
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean:
	rm -rf $(VENV) $(ISAACLAB_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT
	find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints-cpu.txt
	@test -n "$(PYTHON)" || { echo "no Python found; expected python3.11 or python3.12 on PATH, or make PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON), once; this takes a few minutes."
	@"$(PYTHON)" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -qq $(PIP_ARGS) -c constraints-cpu.txt -e '.[dev]'
	@touch $@

$(ISAACLAB_STAMP): pyproject.toml constraints-isaaclab.txt
	@test -n "$(ISAACLAB_PYTHON)" || { echo "Isaac Lab 3 needs Python 3.12; expected python3.12 on PATH, or make isaaclab ISAACLAB_PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(ISAACLAB_VENV) with $(ISAACLAB_PYTHON), once; this downloads about 4 GB and takes ten minutes."
	@"$(ISAACLAB_PYTHON)" -m venv $(ISAACLAB_VENV)
	@$(ISAACLAB_VENV)/bin/python -m pip install -qq --only-binary tinyobjloader $(PIP_ARGS) -c constraints-isaaclab.txt \
		-e '.[isaaclab]' pytest hypothesis
	@touch $@
