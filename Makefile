# Everything a fresh machine needs: Python 3.12 or newer, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo test check docs bench clean

help:
	@echo "make demo    simulate a recording, write it with PyNWB and with nwbflow, compare"
	@echo "make test    run all tests"
	@echo "make check   style, types, import contract"
	@echo "make docs    build the documentation, strictly"
	@echo "make bench   measure against peers (quiet machine, some minutes)"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12) and "nwbflow needs Python 3.12 or newer, this is " + sys.version.split()[0] + ": run make with PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(PIP) install --editable .[codecs,monitor,lsl,zarr,s3,dask,mpi]
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) install --group test --group docs
	@touch $@

$(VENV)/.check: $(VENV)/.installed
	$(PIP) install --group check
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) install --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) install --group bench
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/nwbflow demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .cache build dist site
