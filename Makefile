# make demo     run the main job: prune, export, generate, simulate, compare
# make test     run the tests
# make nightly  run the slow proofs as well
# make formal   run the proofs by SAT, with their times
# make bench    print the measurements
# make docs     build the documentation in build/docs
# Each sets up .venv first; a second run skips what is done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PLACER := $(VENV)/.ecp5
DEMO := build/demo

.PHONY: demo test nightly formal bench docs lint clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: Python 3.11 or later is needed; $(PYTHON) is older. Set PYTHON=..." >&2; exit 1; }
	@for tool in g++ perl; do command -v $$tool >/dev/null \
	  || { echo "make: $$tool is needed to build the simulator; install it first" >&2; exit 1; }; done
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py --out $(DEMO)

test: $(READY) lint docs
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not nightly"

nightly: $(READY) lint docs
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

$(PLACER): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ecp5]'
	@touch $@

formal: $(READY)
	$(BIN)/python -m formal

bench: $(PLACER)
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/python -m sphinx -q --fail-on-warning --keep-going -b html docs build/docs

lint: $(READY)
	$(BIN)/ruff check .

clean:
	rm -rf build
