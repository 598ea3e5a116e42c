# segbench: every target sets up what it needs. Only python3 (3.11.4 or newer), pip and make are expected.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
SUITE  := python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
ANYWHERE := not slow and not gpu and not slurm and not ray
LOWEST := .venv-lowest
LOWEST_TESTS ?= tests
PIP    := pip install --disable-pip-version-check

# Where torch comes from. Empty: where pip looks by itself, which on Linux is the CUDA build: about 3 GB with the NVIDIA
# packages. For the CPU build: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: setup demo check test test-ci kernels test-slow e2e docs wheel leaderboard lowest clean

setup: $(READY)            ## the suite itself, enough for `make demo`

# torch goes in first and alone, at the pinned version: nothing installed later may replace it
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "segbench: torch comes first, $(if $(TORCH_INDEX),from $(TORCH_INDEX),from where pip looks: on Linux the CUDA build; TORCH_INDEX chooses)"
	$(BIN)/$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch -c constraints.txt
	@echo "segbench: now everything else"
	$(BIN)/$(PIP) -c constraints.txt -e .
	@touch $(READY)

# development: tests, linters, oracles, and medpy as a cross-check
$(DEV): $(READY)
	$(BIN)/$(PIP) -c constraints.txt -e ".[reference,dev]"
	@touch $(DEV)

demo: $(READY)             ## two small models on generated scans: a table, the report, figures
	$(BIN)/segbench demo

check: $(DEV)              ## linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/bandit -q -ll -r segbench -c pyproject.toml

test: $(DEV)               ## the default test suite: under five minutes on two cores
	$(BIN)/$(SUITE) -m "not ci and $(ANYWHERE)"

test-ci: $(DEV)            ## what takes a second a test or more: kills and resumes, compiled papers, whole commands
	$(BIN)/$(SUITE) -m "ci and $(ANYWHERE)"

kernels: $(DEV)            ## the GPU kernels in Triton's interpreter, on the CPU: half a minute
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -q tests/networks/test_scan_triton.py tests/networks/test_norm_act.py

test-slow: $(DEV)          ## everything that this machine can run
	$(BIN)/python -m pytest -q -m "not gpu"

e2e: $(DEV)                ## the four mission datasets' adapters end to end, on generated scans
	$(BIN)/python -m pytest -q tests/e2e -m ""

docs: $(DEV)               ## regenerate the generated pages of docs/reference
	$(BIN)/python scripts/generate_reference.py

wheel: $(DEV)
	$(BIN)/python -m build --wheel

leaderboard: $(READY)      ## regenerate the leaderboard's tables and page from the committed records
	$(BIN)/python scripts/leaderboard.py

lowest:                    ## the demo and the default tests (or LOWEST_TESTS) with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) scripts/lowest.py > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $(LOWEST)/requirements.txt
	$(LOWEST)/bin/$(PIP) --no-deps -e .
	$(LOWEST)/bin/segbench demo --results $(LOWEST)/demo/runs
	$(LOWEST)/bin/$(SUITE) -m "not ci and $(ANYWHERE)" \
		--deselect tests/architecture/test_install.py::test_torch_is_the_pinned_one $(LOWEST_TESTS)

clean:
	rm -rf $(VENV) $(LOWEST) dist build .pytest_cache .ruff_cache .hypothesis
