# Everything runs in .venv, which is made from nothing but Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := rshash data_catalog flows tests benchmarks

.PHONY: setup demo test test-faults lint requirements clean
.DELETE_ON_ERROR:

setup: .venv/ready

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rshash needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up .venv (about 6 GB with PyTorch; minutes on a slow line) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	@PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: setup ## two nights on an embedded world, and a query
	@$(BIN)/rshash demo

test: setup ## all tests but those of faults
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not faults"

test-faults: setup ## nights that are killed, servers that restart, full disks, sources that are down
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m faults

lint: setup ## ruff and mypy
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

requirements: ## resolve requirements.txt anew
	uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements.txt

clean:
	rm -rf .venv demo
