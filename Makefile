# Everything that a developer or CI runs. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Newer than pyproject.toml and constraints.txt exactly if they are what is installed.
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast services bench experiment format lint clean prerequisites jars

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: jars ## Watch a model predict live on real Kafka and Redis, and lose a worker
	@$(BIN)/python -m deploy.demo

test: lint jars ## Run everything that CI runs
	@$(BIN)/pytest -q

test-fast: lint ## Lint, types, doctests and unit tests: no services, some minutes
	@$(BIN)/pytest -q -m "not services"

services: jars ## Start Kafka and Redis, print their addresses, run until Ctrl-C
	@$(BIN)/python -m deploy.services

bench: jars ## Measure speed, latency and memory, beside other systems (20 minutes)
	@$(BIN)/python -m tests.bench

experiment: $(INSTALLED) ## Compare six nets on the cook's weeks: tables and a plot (3 minutes)
	@$(BIN)/python -m models.cook.experiment

lint: $(INSTALLED) ## Check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(INSTALLED) ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

clean: ## Remove all that make has made: environment, Kafka, caches
	rm -rf $(VENV) .livestep .hypothesis .mypy_cache .pytest_cache .ruff_cache livestep.egg-info
	find deploy models pipeline tests -name __pycache__ -prune -exec rm -rf {} +

prerequisites:
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: no $(PYTHON) on the PATH; install it: sudo apt-get install -y python3 python3-venv"; \
		echo "  (macOS: brew install python; another one: make PYTHON=/path/to/python3)"; exit 1; } >&2
	@$(PYTHON) deploy/prerequisites.py

jars: $(INSTALLED)
	@$(BIN)/python -m deploy.jars >/dev/null

# Order-only: the prerequisites are checked every time, but never make the installation out of date.
$(INSTALLED): pyproject.toml constraints.txt | prerequisites
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once. The largest part is torch with CUDA: 5 GB on disk, 1-3 minutes."
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[demo,experiment,test]'
	@# Without its dependencies, some of them older than ours: only a data file of it is read.
	@$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-deps aeon
	@touch $@
