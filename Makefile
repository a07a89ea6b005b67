# Everything that developers and CI run; `make` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where cargo is installed, the native loops are built; an installation without them is another one.
CARGO := $(shell command -v cargo)
RUSTFMT := $(shell command -v rustfmt)
CLIPPY := $(shell command -v cargo-clippy)
NATIVE := pipeline/native
NATIVE_SOURCES := $(NATIVE)/Cargo.toml $(wildcard $(NATIVE)/src/*.rs)
export CARGO_TARGET_DIR := $(CURDIR)/.livestep/native-target
# Newer than what it is made from if the installation is up to date.
INSTALLED := $(VENV)/.installed$(if $(CARGO),-native)
# Separate tools for the bill of materials and vulnerabilities: their dependencies must not change ours.
TOOLS := .livestep/tools
# One process per core, each with its own Kafka and Redis. The tests of a file share models and brokers, so they run in one process.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast simulate chaos load endurance services bench experiment docs sbom audit \
	format lint clean prerequisites jars

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: jars ## Watch a model predict live on real Kafka and Redis, and survive kill -9
	@$(BIN)/python -m livestep.deploy.demo

test: lint jars ## Run all checks and tests, as CI does
	@$(if $(CARGO),$(BIN)/python -m tests.rust)
	@$(BIN)/pytest -q $(PARALLEL)

test-fast: lint ## Run lint, types, doctests and unit tests, without services (some minutes)
	@$(BIN)/pytest -q $(PARALLEL) -m "not services"

simulate: $(INSTALLED) ## Run the engine under random faults: SEED=7 prints the story of one seed, SEEDS=10000 runs many
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) \
		--from $(or $(FROM),0)) $(if $(EDITION),--edition $(EDITION)) $(if $(ABLATION),--ablation $(ABLATION)) $(if $(COVERAGE),--coverage)

chaos: jars ## Kill workers, Kafka and Redis under load, and check the output: MINUTES=5 SEED=1 CLUSTER=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),5) --seed $(or $(SEED),1) \
		$(if $(CLUSTER),--cluster)

load: jars ## Measure overload and recovery: backlog, one key, a million keys, slow Redis, kill, replay
	@$(BIN)/python -m tests.load overload one-key million-keys slow-redis restarts sigkill replay

endurance: jars ## Run at half load for MINUTES=30: growth of memory, open files and threads
	@$(BIN)/python -m tests.load endurance --minutes $(or $(MINUTES),30)

services: jars ## Start Kafka and Redis, print their addresses, and run until Ctrl-C
	@$(BIN)/python -m livestep.deploy.local.services

bench: jars ## Measure speed, latency and memory, and compare with other systems (20 minutes)
	@$(BIN)/python -m tests.bench

experiment: $(INSTALLED) ## Compare six nets on the cook example: tables and a plot (3 minutes)
	@$(BIN)/python -m livestep.models.examples.cook.experiment

docs: $(INSTALLED) ## Write the API reference from the docstrings: .livestep/docs/livestep.html
	@$(BIN)/python -m pdoc --docformat google --output-directory .livestep/docs \
		livestep '!livestep.pipeline' '!livestep.models' '!livestep.deploy'
	@echo "wrote .livestep/docs/livestep.html"

sbom: $(INSTALLED) $(TOOLS)/.installed ## Write the software bill of materials (CycloneDX) to .livestep/sbom.json
	@$(TOOLS)/bin/python -m livestep.deploy.sbom $(BIN)/python .livestep/sbom.json

audit: $(TOOLS)/.installed ## Check pinned packages for known vulnerabilities (asks pypi.org)
	@$(TOOLS)/bin/pip-audit -r constraints.txt --no-deps --disable-pip --strict || { \
		echo "error: a package has a known vulnerability, or pypi.org could not be reached"; exit 1; } >&2

lint: $(INSTALLED) ## Check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(if $(RUSTFMT),cargo fmt --check --manifest-path $(NATIVE)/Cargo.toml)
	@$(if $(CLIPPY),cargo clippy --quiet --all-targets --manifest-path $(NATIVE)/Cargo.toml -- -D warnings)

format: $(INSTALLED) ## Format the code and fix what ruff can fix
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format
	@$(if $(RUSTFMT),cargo fmt --manifest-path $(NATIVE)/Cargo.toml)

clean: ## Remove everything that make has created: environment, Kafka, caches
	rm -rf $(VENV) .livestep .hypothesis .mypy_cache .pytest_cache .ruff_cache livestep.egg-info \
		build $(NATIVE)/target $(NATIVE)/Cargo.lock $(NATIVE)/*.so
	find deploy models docs pipeline tests -name __pycache__ -prune -exec rm -rf {} +

prerequisites:
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: no $(PYTHON) on the PATH; install it: sudo apt-get install -y python3 python3-venv"; \
		echo "  (macOS: brew install python; another one: make PYTHON=/path/to/python3)"; exit 1; } >&2
	@$(PYTHON) deploy/prerequisites.py

jars: $(INSTALLED)
	@$(BIN)/python -m livestep.deploy.local.jars >/dev/null

# Order-only: prerequisites are checked every time, but never make the installation out of date.
$(INSTALLED): pyproject.toml constraints.txt setup.py $(NATIVE_SOURCES) | prerequisites
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once. The largest part is torch with CUDA: 5 GB on disk, 1-3 minutes."
	@rm -f $(NATIVE)/*.so
	@# By variable, the versions hold for what builds the package, too.
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(BIN)/python -m pip install --disable-pip-version-check -e '.[worker,demo,docs,experiment,test]'
	@# Without its dependencies, some of them older than ours: only a data file of it is read.
	@$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-deps aeon
	@$(BIN)/python -m livestep.deploy.native_loops
	@rm -f $(VENV)/.installed*
	@touch $@

$(TOOLS)/.installed: deploy/security/tools.txt | prerequisites
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --disable-pip-version-check -q --no-deps -r deploy/security/tools.txt
	@touch $@
