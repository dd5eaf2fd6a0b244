# truing: `make help` lists the targets. PYTHON is the interpreter that makes .venv (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup run check test test-slow test-peers docs bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(BIN)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

setup: $(BIN)/.ready ## .venv with truing and all that its development needs

run: setup ## the main job on the embedded default model: measure, align, guard, compare; ends with a report
	$(BIN)/truing run --out runs/default

check: setup ## style, types, floors
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup ## the suite (at most 15 minutes on 2 cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not peers" -rs --durations=15

test-slow: setup ## what takes longer: kill tests, two processes, Ray, CPU recipes
	$(BIN)/python -m pytest -m "slow and not peers" -rs

test-peers: setup ## against nemoguardrails, lm-eval, TRL, garak, PyRIT, Inspect AI and krippendorff, each in a venv of its own
	$(BIN)/python -m pytest -m peers -rs

docs: setup ## the CLI reference, generated
	$(BIN)/python docs/generate.py

bench: setup ## the quick form of every benchmark (see benchmarks/README.md)
	$(BIN)/python benchmarks/run.py

clean: ## .venv, caches and runs
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
