# The one interface of README and .ci/run. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
WEB := serve/web
ARGS ?=

.PHONY: help setup demo test check lock drill bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Each stamp is newer than what it was made from, so a second `make setup` does nothing and needs no network.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) install --quiet -r requirements-dev.lock
	touch $@

$(VENV)/.web: $(WEB)/package.json $(WEB)/package-lock.json | $(BIN)/python
	@if ! command -v npm >/dev/null; then \
		echo "no npm: the page shows pictures in place of 3-D models, and its browser test cannot run; install Node.js 20 and run make setup again" >&2; \
	elif (cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error && npm run --if-present vendor); then \
		touch $@; \
	else \
		echo "npm ci failed: the page shows pictures in place of 3-D models until make setup succeeds with it" >&2; \
	fi

setup: $(VENV)/.installed-dev $(VENV)/.web ## .venv with the pinned locks, and the page's npm packages
	@$(BIN)/guidelens --version

demo: $(VENV)/.installed $(VENV)/.web ## the whole loop on the simulated shop; report in out/demo
	$(BIN)/guidelens demo --out out/demo $(ARGS)

test: $(VENV)/.installed-dev $(VENV)/.web ## unit, integration and e2e tests
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev ## ruff, mypy, import-linter, deptry, locks, layout, manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python -m checks.locks
	$(BIN)/python -m checks.layout
	$(BIN)/python -m checks.manifests

lock: $(VENV)/.installed-dev ## make the locks anew from what is installed in .venv
	$(BIN)/python -m checks.locks --write

drill: $(VENV)/.installed-dev ## the long form of the tests marked "drill"
	GUIDELENS_DRILL=1 $(BIN)/python -m pytest -m drill $(ARGS)

# What a benchmark needs that is not in the repository, by the variable that names it; one without it is left out, and said so.
NEEDS_joint = $(if $(MOVIELENS),--data $(MOVIELENS),MOVIELENS=DIR)
NEEDS_top_n = $(NEEDS_joint)
NEEDS_next_item = $(if $(SEQUENCES),--data $(SEQUENCES) --attributes $(ATTRIBUTES),SEQUENCES=FILE ATTRIBUTES=FILE)
NEEDS_multi_task_speed = $(if $(PEERS),--peers $(PEERS),PEERS=DIR)
NEEDS_search_quality = $(if $(GROCERIES),--data $(GROCERIES),GROCERIES=DIR)
NEEDS_frames = $(if $(GROCERIES),--data $(GROCERIES),GROCERIES=DIR)
NEEDS_rough_photos = $(NEEDS_frames)
NEEDS_regions = $(NEEDS_frames)
NEEDS_packaging_text = $(NEEDS_frames)
NEEDS_recognition = $(if $(GROCERIES),--data $(GROCERIES),GROCERIES=DIR)
NEEDS_open_set = $(NEEDS_recognition)
NEEDS_encoders = $(if $(PHOTOS),--photos $(PHOTOS),PHOTOS=DIR)
BENCHMARKS = $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py))

bench: $(VENV)/.installed-dev ## every benchmark, one after another (MOVIELENS=DIR SEQUENCES=FILE ATTRIBUTES=FILE PEERS=DIR GROCERIES=DIR PHOTOS=DIR add those that need them)
	@$(foreach name,$(BENCHMARKS),echo "== $(name)"; $(if $(findstring =,$(NEEDS_$(name))),echo "left out: make bench $(NEEDS_$(name))",$(BIN)/python -m benchmarks.$(name) $(NEEDS_$(name)));) true

clean: ## remove caches and reports; keeps .venv and every home
	rm -rf out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -not -path '*/node_modules/*' -prune -exec rm -rf {} +
