# segbench: every target sets up what it needs. Only python3 (3.11.4 or newer), pip and make are expected.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev

.PHONY: setup demo check test test-slow e2e docs wheel leaderboard clean

setup: $(READY)            ## the suite itself, enough for `make demo`

# torch goes in first and alone, from the pinned CPU wheel: nothing installed later may replace it
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $(READY)

# development: tests, linters, oracles, and medpy as a cross-check
$(DEV): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[reference,dev]"
	@touch $(DEV)

demo: $(READY)             ## two small models on generated scans: a table, the report, figures
	$(BIN)/segbench demo

check: $(DEV)              ## linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/bandit -q -ll -r segbench -c pyproject.toml

test: $(DEV)               ## the default test suite
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not slurm and not ray"

test-slow: $(DEV)          ## everything that this machine can run
	$(BIN)/python -m pytest -q -m "not gpu"

e2e: $(DEV)                ## the four mission datasets' adapters end to end, on generated scans
	$(BIN)/python -m pytest -q tests/e2e -m ""

docs: $(DEV)               ## regenerate the generated pages of docs/reference
	$(BIN)/python scripts/generate_reference.py

wheel: $(DEV)
	$(BIN)/python -m build --wheel

leaderboard: $(DEV)        ## regenerate the leaderboard's tables and page from the committed records
	$(BIN)/python scripts/leaderboard.py

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
