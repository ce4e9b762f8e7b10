# Two commands for a fresh machine:
#
#   make demo    the main job, on a real API server of your own
#   make test    every test
#
# Each sets up what it needs: a virtual environment in .venv, and, once, the control plane of the
# local cluster, which is built from pinned Go modules into ~/.cache/helmops (some ten minutes).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
INSTALLED := .venv/.installed
# The demo's cluster; one is made on loopback unless one is named.
CONTEXT ?=
# More for pytest, as in: make test PYTEST="-k rollback"
PYTEST ?=
# Tests at a time: one more than there are cores, because many of them wait for a cluster.
WORKERS ?= $(shell expr "$$(nproc)" + 1)
CHAOS ?=

# Every command would be compiled anew at each start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-long chaos check format docs histories bench cluster-up cluster-down programs clean

help: ## show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt scripts/setup
	@scripts/setup

# Before anything is timed or tested: what is missing is fetched or built here, with its progress.
programs: $(INSTALLED)
	@$(BIN)/python -m devcluster programs

demo: programs ## the main job: install, upgrade, a broken version, the rollback (CONTEXT=... for your cluster)
	@HELMOPS_HELM="$${HELMOPS_HELM:-$$($(BIN)/python -m devcluster tools helm)}" \
		$(BIN)/helmops demo $(if $(CONTEXT),--context '$(CONTEXT)')

test: $(INSTALLED) ## every test but the slow ones
	@$(BIN)/python -m devcluster programs --tests
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(PYTEST)

test-long: $(INSTALLED) ## the tests that take minutes, and many more examples of what must always hold
	@$(BIN)/python -m devcluster programs --tests --real-node
	@$(BIN)/python -m pytest -m slow $(PYTEST)
	@PROPERTY_EXAMPLES=5000 $(BIN)/python -m pytest -n $(WORKERS) tests/property $(PYTEST)

# Some cases only: make chaos CHAOS="'rollback: *'"; the page in docs/: make chaos CHAOS=--write
chaos: programs ## kill and cut off helmops and helm in each phase, on clusters of their own
	@$(BIN)/python -m tests.chaos $(CHAOS)

check: $(INSTALLED) ## lint, format, types, imports between rooms, generated documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.reference --check
	$(BIN)/python -m scripts.histories --check

format: $(INSTALLED) ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

docs: $(INSTALLED) ## write the generated parts of docs/
	$(BIN)/python -m scripts.reference

histories: programs ## five histories told to helm and to helmops, into docs/histories.md
	@$(BIN)/python -m scripts.histories --write

bench: programs ## the table of benchmarks, beside helm in the same run
	@$(BIN)/python -m benchmarks

cluster-up: programs ## a local cluster for development; prints its KUBECONFIG
	@$(BIN)/python -m devcluster up

cluster-down: $(INSTALLED) ## stop it
	@$(BIN)/python -m devcluster down

clean: ## remove .venv and what tools left in the checkout; built programs stay in ~/.cache/helmops
	rm -rf .venv build dist .run *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
