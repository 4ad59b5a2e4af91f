# `make` lists the targets. Each installs what it needs; a second call installs nothing.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= install
SCALE  ?= micro
DATA   ?=
ARGS   ?=
SAMPLE ?= 200
BENCH  ?= transport dsir tsds embedding engines training toxicity selection

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PIP   := $(PY) -m pip install --quiet --disable-pip-version-check
TORCH_VERSION := 2.13.0
# Index to take torch from: PyTorch's own CPU index saves gigabytes where there is no GPU.
TORCH_INDEX ?=

.PHONY: help setup test test-slow test-faults mutants lint format reproduce-glue plan-glue reproduce-domain plan-domain \
  reproduce-zeroshot plan-zeroshot reproduce-toxicity plan-toxicity reproduce-labels plan-labels \
  reproduce-gap plan-gap reproduce-all report bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20
	@echo
	@echo "SCALE=micro|folder|paper  DATA=folder of rows and passages  ARGS='any Hydra override'"
	@echo "TORCH_INDEX=index to take torch from (PyTorch's CPU index saves gigabytes without a GPU)"

setup: $(STAMP) ## make .venv with torch (for CUDA or the CPU) and the package

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'gotd needs Python 3.11 or newer; choose one: make PYTHON=python3.12 …'; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import torch' 2>/dev/null || test '$(TORCH)' = skip || { echo 'installing torch'; \
	  $(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH_VERSION); }
	@echo 'installing gotd and what it needs: two or three minutes'
	@$(PIP) -c constraints.txt -e '.[demo,dev]'
	@$(PY) -m pip check
	@touch $@

test: $(STAMP) ## run the tests (under ten minutes on two cores)
	$(PY) -m pytest -m "not slow" -n 2 $(ARGS)

test-slow: $(STAMP) ## run the tests that take longer
	$(PY) -m pytest -m "slow and not faults" -n 2 $(ARGS)

test-faults: $(STAMP) ## disturb runs at a sample of their file operations (FULL=1: at all)
	@mkdir -p build && rm -f build/faults.jsonl
	FAULTS_TABLE=build/faults.jsonl $(PY) -m pytest -m faults -n 2 --durations=0 $(ARGS); \
	  status=$$?; $(PY) tests/support/fault_table.py build/faults.jsonl $(WRITE); exit $$status

mutants: $(STAMP) ## change one place of the code at a time (SAMPLE=200) and run its tests
	$(PY) tests/support/mutants.py --sample $(SAMPLE) $(ARGS)

lint: $(STAMP) ## run ruff (lint and format) and pyright
	$(VENV)/bin/ruff check src tests experiments
	$(VENV)/bin/ruff format --check src tests experiments
	$(VENV)/bin/pyright --pythonpath $(PY)

format: $(STAMP) ## apply ruff's fixes and format
	$(VENV)/bin/ruff check --fix src tests experiments
	$(VENV)/bin/ruff format src tests experiments

reproduce-glue: $(STAMP) ## run Table 4: GLUE, two stages, every task, arm and seed
	DATA='$(DATA)' $(PY) experiments/glue.py scale=$(SCALE) $(ARGS)

plan-glue: $(STAMP) ## print what reproduce-glue would run, what is done, hours, memory, disk
	DATA='$(DATA)' $(VENV)/bin/gotd plan experiment=glue scale=$(SCALE) $(ARGS)

reproduce-domain: $(STAMP) ## run Table 2: domain tasks (SCALE=paper_few_labels: Table 3)
	DATA='$(DATA)' $(PY) experiments/domain.py scale=$(SCALE) $(ARGS)

plan-domain: $(STAMP) ## print what reproduce-domain would run
	DATA='$(DATA)' $(VENV)/bin/gotd plan experiment=domain scale=$(SCALE) $(ARGS)

reproduce-labels: $(STAMP) ## run Figure 1: labels that a selection saves
	DATA='$(DATA)' $(PY) experiments/labels.py scale=$(SCALE) $(ARGS)

plan-labels: $(STAMP) ## print what reproduce-labels would run
	DATA='$(DATA)' $(VENV)/bin/gotd plan experiment=labels scale=$(SCALE) $(ARGS)

reproduce-zeroshot: $(STAMP) ## run Tables 16 to 18: answers of a causal model without fine-tuning
	DATA='$(DATA)' $(PY) experiments/zeroshot.py scale=$(SCALE) $(ARGS)

plan-zeroshot: $(STAMP) ## print what reproduce-zeroshot would run
	DATA='$(DATA)' $(VENV)/bin/gotd plan experiment=zeroshot scale=$(SCALE) $(ARGS)

reproduce-toxicity: $(STAMP) ## run Table 1: detoxification of a causal model
	DATA='$(DATA)' $(PY) experiments/toxicity.py scale=$(SCALE) $(ARGS)

plan-toxicity: $(STAMP) ## print what reproduce-toxicity would run
	DATA='$(DATA)' $(VENV)/bin/gotd plan experiment=toxicity scale=$(SCALE) $(ARGS)

reproduce-gap: $(STAMP) ## run a target whose second half the base model lacks, at a known mix
	DATA='$(DATA)' $(PY) experiments/gap.py scale=$(SCALE) $(ARGS)

plan-gap: $(STAMP) ## print what reproduce-gap would run
	DATA='$(DATA)' $(VENV)/bin/gotd plan experiment=gap scale=$(SCALE) $(ARGS)

reproduce-all: $(STAMP) ## run every experiment; if one fails, the others still run
	@$(MAKE) --no-print-directory --keep-going reproduce-glue reproduce-domain \
	  reproduce-toxicity reproduce-zeroshot reproduce-labels reproduce-gap

report: $(STAMP) ## write tables, figures and page again from records
	$(VENV)/bin/gotd report $(ARGS)

$(VENV)/.bench: $(STAMP)
	@$(PIP) -c constraints.txt -e '.[demo,dev,bench]'
	@touch $@

bench: $(VENV)/.bench ## compare speed with other packages (BENCH='transport dsir …', ARGS=--quick)
	@for name in $(BENCH); do \
	  DATA='$(DATA)' $(PY) experiments/benchmarks/$$name.py $(ARGS) || exit 1; done

clean: ## remove caches; artifacts and .venv stay
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist
	find src tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
