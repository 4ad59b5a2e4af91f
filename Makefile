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
UV    := $(VENV)/bin/uv
GOTD  := DATA='$(DATA)' $(VENV)/bin/gotd
TORCH_VERSION := 2.13.0
# Index to take torch from; empty: uv finds the build for this machine's GPU or processor.
TORCH_INDEX ?=
# Seconds that one request to PyTorch's index may take, before torch is taken from PyPI.
TORCH_TIMEOUT ?= 60
LOCK := .ci/lock.txt

.PHONY: help setup test test-slow test-faults mutants lint format docs pictures reproduce-glue \
  plan-glue reproduce-domain plan-domain \
  reproduce-zeroshot plan-zeroshot reproduce-toxicity plan-toxicity reproduce-labels plan-labels \
  reproduce-gap plan-gap reproduce-grid plan-grid reproduce-instruction plan-instruction \
  reproduce-all report bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20
	@echo
	@echo "SCALE=micro|folder|paper  DATA=folder of rows and passages  ARGS='any Hydra override'"
	@echo "TORCH_INDEX=index to take torch from, instead of the one that uv finds for this machine"

setup: $(STAMP) ## make .venv with torch (for CUDA or the CPU) and the package

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'gotd needs Python 3.11 or newer; choose one: make PYTHON=python3.12 …'; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import torch' 2>/dev/null || test '$(TORCH)' = skip || { echo 'installing torch'; \
	  $(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch==$(TORCH_VERSION), \
	  $(PIP) -c constraints.txt uv && UV_HTTP_TIMEOUT=$(TORCH_TIMEOUT) UV_HTTP_RETRIES=1 \
	  $(UV) pip install --quiet --python $(PY) --torch-backend=auto torch==$(TORCH_VERSION) || { \
	  echo "PyTorch's index cannot be reached; taking torch from PyPI, with CUDA on Linux"; \
	  $(PIP) torch==$(TORCH_VERSION); }); }
	@echo 'installing gotd and what it needs: minutes, most of them for downloads'
	@$(PIP) -c constraints.txt -e '.[demo,dev]'
	@$(PY) -m pip check
	@echo 'gotd is installed; source $(VENV)/bin/activate'
	@touch $@

test: $(STAMP) ## run the tests (under ten minutes on two cores)
	$(PY) -m pytest -m "not slow" -n 2 $(ARGS)

$(VENV)/.kernels: $(STAMP)
	@$(PIP) -c constraints.txt -e '.[demo,dev,kernels]'
	@touch $@

test-slow: $(VENV)/.kernels ## run the tests that take longer
	$(PY) -m pytest -m "slow and not faults" -n 2 $(ARGS)

test-faults: $(STAMP) ## disturb runs at a sample of their file operations (FULL=1: at all)
	@mkdir -p build && rm -f build/faults.jsonl
	FAULTS_TABLE=build/faults.jsonl $(PY) -m pytest -m faults -n 2 --dist worksteal --durations=10 $(ARGS); \
	  status=$$?; $(PY) tests/support/fault_table.py build/faults.jsonl $(WRITE); exit $$status

mutants: $(VENV)/.kernels ## change one place of the code at a time (SAMPLE=200) and run its tests
	$(PY) tests/support/mutants.py --sample $(SAMPLE) $(ARGS)

lint: $(STAMP) ## run ruff (lint and format) and pyright
	$(VENV)/bin/ruff check src tests experiments
	$(VENV)/bin/ruff format --check src tests experiments
	$(VENV)/bin/pyright --pythonpath $(PY)

format: $(STAMP) ## apply ruff's fixes and format
	$(VENV)/bin/ruff check --fix src tests experiments
	$(VENV)/bin/ruff format src tests experiments

$(VENV)/.docs: $(STAMP)
	@$(PIP) -c constraints.txt -e '.[demo,dev,docs]'
	@touch $@

docs: $(VENV)/.docs ## build the site from docs/ into build/docs, with warnings as errors
	$(PY) -m sphinx -W --keep-going -E -q -c docs -d build/doctrees . build/docs

pictures: $(STAMP) ## draw the pictures of docs/ again (the page needs Chromium)
	$(PY) docs/pictures/make.py $(ARGS)

reproduce-glue: $(STAMP) ## run Table 4: GLUE, two stages, every task, arm and seed
	$(GOTD) run experiment=glue scale=$(SCALE) $(ARGS)

plan-glue: $(STAMP) ## print what reproduce-glue would run, what is done, hours, memory, disk
	$(GOTD) plan experiment=glue scale=$(SCALE) $(ARGS)

reproduce-domain: $(STAMP) ## run Table 2: domain tasks (SCALE=paper_few_labels: Table 3)
	$(GOTD) run experiment=domain scale=$(SCALE) $(ARGS)

plan-domain: $(STAMP) ## print what reproduce-domain would run
	$(GOTD) plan experiment=domain scale=$(SCALE) $(ARGS)

reproduce-labels: $(STAMP) ## run Figure 1: labels that a selection saves
	$(GOTD) run experiment=labels scale=$(SCALE) $(ARGS)

plan-labels: $(STAMP) ## print what reproduce-labels would run
	$(GOTD) plan experiment=labels scale=$(SCALE) $(ARGS)

reproduce-zeroshot: $(STAMP) ## run Tables 16 to 18: answers of a causal model without fine-tuning
	$(GOTD) run experiment=zeroshot scale=$(SCALE) $(ARGS)

plan-zeroshot: $(STAMP) ## print what reproduce-zeroshot would run
	$(GOTD) plan experiment=zeroshot scale=$(SCALE) $(ARGS)

reproduce-toxicity: $(STAMP) ## run Table 1: detoxification of a causal model
	$(GOTD) run experiment=toxicity scale=$(SCALE) $(ARGS)

plan-toxicity: $(STAMP) ## print what reproduce-toxicity would run
	$(GOTD) plan experiment=toxicity scale=$(SCALE) $(ARGS)

reproduce-gap: $(STAMP) ## run a target whose second half the base model lacks, at a known mix
	$(GOTD) run experiment=gap scale=$(SCALE) $(ARGS)

plan-gap: $(STAMP) ## print what reproduce-gap would run
	$(GOTD) plan experiment=gap scale=$(SCALE) $(ARGS)

reproduce-grid: $(STAMP) ## run every selector that reads embeddings in every space (micro, folder)
	$(GOTD) run experiment=grid scale=$(SCALE) $(ARGS)

plan-grid: $(STAMP) ## print what reproduce-grid would run
	$(GOTD) plan experiment=grid scale=$(SCALE) $(ARGS)

reproduce-instruction: $(STAMP) ## run TSDS's instruction tuning on selected prompts and responses
	$(GOTD) run experiment=instruction scale=$(SCALE) $(ARGS)

plan-instruction: $(STAMP) ## print what reproduce-instruction would run
	$(GOTD) plan experiment=instruction scale=$(SCALE) $(ARGS)

reproduce-all: $(STAMP) ## run every experiment; if one fails, the others still run
	@$(MAKE) --no-print-directory --keep-going reproduce-glue reproduce-domain \
	  reproduce-toxicity reproduce-zeroshot reproduce-labels reproduce-gap reproduce-instruction

report: $(STAMP) ## write tables, figures and page again from records
	$(VENV)/bin/gotd report $(ARGS)

$(VENV)/.bench: $(STAMP)
	@$(PIP) -c constraints.txt -e '.[demo,dev,bench]'
	@touch $@

bench: $(VENV)/.bench ## compare speed with other packages (BENCH='transport dsir …', ARGS=--quick)
	@for name in $(BENCH); do \
	  DATA='$(DATA)' $(PY) experiments/benchmarks/$$name.py $(ARGS) || exit 1; done

lock: $(STAMP) ## write versions and hashes of all that is installed (no addresses)
	@echo torch==$(TORCH_VERSION) > $(VENV)/torch.txt
	$(UV) pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	  --extra demo --extra dev --extra docs --extra harness --extra kernels --extra ray --extra remote --extra slurm \
	  -c constraints.txt -c $(VENV)/torch.txt --no-emit-index-url --no-header --no-annotate \
	  -o $(LOCK)

clean: ## remove caches; artifacts and .venv stay
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist
	find src tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
