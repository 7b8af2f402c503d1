# make reproduce: set up and run the whole pipeline.   make test: set up and pass every check.   make help: the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev reproduce quick paper test lint format bench clean

# The commands of the environment come first, so that DVC's stages run its python.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: .venv/.runtime  ## Build the environment in .venv from the pinned requirements.

setup-dev: .venv/.dev  ## The same with linter, type checker and test runner.

.venv/.runtime: requirements.txt pyproject.toml tools/setup.sh
	@sh tools/setup.sh requirements.txt .venv/.runtime

.venv/.dev: .venv/.runtime requirements-dev.txt
	@sh tools/setup.sh requirements-dev.txt .venv/.dev

.venv/.bench: .venv/.dev benchmarks/requirements-bench.txt
	@sh tools/setup.sh benchmarks/requirements-bench.txt .venv/.bench

reproduce: setup  ## Run the whole pipeline (dvc repro) and show where the report is.
	@python -m tools.preflight
	@python -m dvc repro
	@echo "report: $(CURDIR)/reports/index.html"

quick: setup  ## Run the whole pipeline at quick scale in a temporary clone; the work tree stays as it is.
	@python -m tools.preflight
	@python -m tools.quick

TASKS ?= cheetah_vel cheetah_dir
META_STEPS ?=
paper: setup  ## Run locomotion at paper scale, TASKS='cheetah_vel cheetah_dir' or others, into results/paper.
	@python -m tools.preflight
	@python -m tools.paper $(TASKS) $(if $(META_STEPS),--meta-steps $(META_STEPS))

test: setup-dev lint  ## Pass every check: lint, types, tests.
	@python -m pytest -n 2 --dist loadfile

lint: setup-dev
	@python -m ruff check .
	@python -m ruff format --check .
	@python -m mypy

format: setup-dev  ## Format the code.
	@python -m ruff check --fix .
	@python -m ruff format .

bench: .venv/.bench  ## Time meta-steps and the simulation against peers and their limits; docs/benchmark*.md.
	@python -m benchmarks.meta_step
	@python -m benchmarks.classification
	@python -m benchmarks.render
	@python -m benchmarks.simulation
	@python -m benchmarks.render_simulation
	@python -m benchmarks.policy_meta_step
	@python -m benchmarks.render_policy_meta_step

clean:  ## Remove the environment and all caches; results stay.
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
