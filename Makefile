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
BROWSER := $(VENV)/.browser
DEMO := build/demo
AP_TYPES := $(VENV)/hls4ml/templates/vivado/ap_types

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

test: $(READY) $(BROWSER) lint docs
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not nightly"

# The vendor's ap_int.h, as hls4ml's wheel carries it: only unpacked, since the package needs much that is
# not needed here. Where the wheel cannot be had, the tests with it are skipped.
$(AP_TYPES)/ap_int.h: constraints.txt | $(READY)
	rm -rf $(VENV)/hls4ml*
	$(BIN)/python -m pip download --quiet --no-deps --constraint constraints.txt --dest $(VENV) hls4ml
	$(BIN)/python -m zipfile --extract $(VENV)/hls4ml-*.whl $(VENV)
	@touch $@

nightly: $(READY) $(BROWSER) lint docs
	-@$(MAKE) --no-print-directory $(AP_TYPES)/ap_int.h
	AP_TYPES=$(AP_TYPES) $(BIN)/python -m pytest -q -n 2 --dist worksteal

$(PLACER): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ecp5]'
	@touch $@

$(BROWSER): $(READY) tests/browser/package-lock.json tests/browser/chromium.py
	$(BIN)/python -m tests.browser.chromium
	@touch $@

formal: $(READY)
	$(BIN)/python -m formal

bench: $(PLACER)
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/python -m sphinx -q --fail-on-warning --keep-going -b html docs build/docs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf build
