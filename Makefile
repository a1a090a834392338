# Needs CPython >= 3.11, make and a package index. Everything else is set up in .venv on first use.

# The first of these that really runs: a pyenv shim may stand in PATH for a version not selected.
ifndef PYTHON
PYTHON := $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
endif

BIN := .venv/bin
# Test processes at once: they wait more than they compute.
export WORKERS ?= 8
# Where the chat listens; 0: on any free port.
PORT := 8000
READY := .venv/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start some hundred processes, none of which should compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo chat test test-all lint format coverage bench promtool chromium systemd constraints clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

demo: $(READY)  ## A few hundred tasks, SIGTERM, then SIGKILL and a next start: none is left running
	$(BIN)/python examples/demo

chat: $(READY)  ## A chat in the browser, with a cancel button, against a local server; Ctrl-C ends it
	@exec $(BIN)/python examples/chat_service --port $(PORT)

test: $(READY)  ## The suite on this checkout, without the tests marked slow
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS)

test-all: lint  ## Lint, then the suite against the built wheel on every CPython found, with the oldest anyio too
	rm -rf dist
	$(BIN)/hatchling build -t wheel -d dist
	tools/test-oldest dist/*.whl
	tools/test-wheel dist/*.whl

lint: $(READY)  ## Format, rules, types, import arrows
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy sigmic_guard tests examples benchmarks
	$(BIN)/lint-imports

format: $(READY)  ## Let ruff format, and fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

coverage: $(READY)  ## The whole suite on this checkout, and which lines it missed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(READY)  ## Every benchmark, small: this library beside what one would use without it
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python -m benchmarks --quick

promtool:  ## Install Debian's prometheus, whose promtool checks the alert rules (as root)
	@command -v promtool >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; } >/dev/null

chromium:  ## Install Debian's chromium, in which the chat's page is tried (as root)
	@command -v chromium >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null

systemd:  ## Install Debian's systemd, whose systemd-analyze checks the unit in docs/hosts/ (as root)
	@command -v systemd-analyze >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd; } >/dev/null

constraints:  ## Write constraints.txt anew, with the newest versions
	$(PYTHON) -m venv --clear .venv-constraints
	.venv-constraints/bin/pip install --upgrade pip
	.venv-constraints/bin/pip install --group dev --group bench -e '.[cli,otel,uvloop]'
	{ sed -n '/^#/p' constraints.txt; \
	  .venv-constraints/bin/pip freeze --all --exclude-editable --exclude setuptools; } > .venv-constraints/new
	mv .venv-constraints/new constraints.txt
	rm -rf .venv-constraints

clean:  ## Remove what make made
	rm -rf .venv .venv-* build dist .coverage* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip first: the one that comes with Python 3.11 knows neither --group nor --build-constraint.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv found; set PYTHON=…" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt \
		--group dev --editable '.[cli,otel,uvloop]'
	touch $@
