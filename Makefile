# Everything here sets itself up: Python 3.11 or newer and make are all a machine needs.
#
#   make test ARGS="-k bert -x"      ARGS goes to the command (pytest, polyformer demo, the benchmark)
#   make test PYTHON=python3.12      another Python than the first fit one (for a new .venv)
#   make test PIP_ARGS="..."         more options for pip, an index of CPU builds of torch say

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made#  stamps: one for each set of packages that was installed to the end
ARGS ?=
PIP_ARGS ?=
# 3.11 first: the reference that the tests compare with runs on no later one
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# pytest runs a process a core, so a process gets one thread
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all fuzz lint format oracle docs bench clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(MADE)/demo ## semantic search over the docstrings of the standard library (ARGS: your questions)
	@$(BIN)/polyformer demo $(ARGS)

test: $(MADE)/test ## the whole test suite (ARGS: options for pytest)
	@$(BIN)/python tests/oracle/build.py --if-possible
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-all: $(MADE)/test ## the same with every pooling of every class, every rename, every graph: an hour
	@$(BIN)/python tests/oracle/build.py --if-possible
	POLYFORMER_TESTS=all $(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(MADE)/dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(MADE)/dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .

oracle: $(MADE)/venv $(MADE)/test ## the reference that tests compare with, transformers 4.6.1 (Python 3.11)
	@$(BIN)/python tests/oracle/build.py

fuzz: $(MADE)/test ## for the night: every tokenizer against its original on 20,000 random texts, lines of 10 MB
	@$(BIN)/python tests/oracle/build.py --if-possible
	POLYFORMER_FUZZ=20000 $(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal \
		tests/test_tokenizers_fuzz.py tests/test_tokenizers_long.py $(ARGS)

docs: $(MADE)/test ## docs/architectures.md, written from the code and measured against the reference
	@$(BIN)/python tests/oracle/build.py
	$(ONE_THREAD) $(BIN)/python docs/make_architectures.py

bench: $(MADE)/bench ## speed and memory beside other libraries (ARGS: --quick, --only, --threads)
	$(BIN)/python benchmarks/encode.py $(ARGS)
	$(BIN)/python benchmarks/load.py

clean: ## remove caches and build products
	rm -rf build dist out .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove the virtual environment, the reference and the downloaded weights
	rm -rf $(VENV) .oracle .oracle-making-* .weights

# ---- set-up ----------------------------------------------------------------------------------------------------------
# A stamp is written after the last step, so whatever broke off half way is done again. Stamps lie in the environment
# they speak of and go with it.

$(MADE)/venv:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer with venv; name one with PYTHON=" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --version >/dev/null
	@mkdir -p $(MADE) && touch $@

$(MADE)/%: $(MADE)/venv pyproject.toml constraints.txt
	@echo "installing polyformer[$*] and what it needs (minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@touch $@
