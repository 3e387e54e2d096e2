# `make` lists the commands. Each one that needs the packages runs `setup` first, which does nothing when up to date.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= logical

export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup course test lab explorer figures clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: .venv/.ready ## install the locked packages into .venv (once; about 6 GB on Linux)

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$(PYTHON) must be Python 3.10 or newer: install one and name it, as in 'make setup PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian or Ubuntu, 'sudo apt-get install python3-venv'" >&2; exit 1; }
	@echo "Installing the locked packages into .venv: some minutes, mostly downloads."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

course: setup ## run every chapter, then rebuild the figures; executed copies go to runs/course
	@$(BIN)/t2i course

test: setup ## run all tests, and every chapter at scale smoke
	@rm -rf runs/smoke
	@OMP_NUM_THREADS=1 T2I_SCALE=smoke T2I_RUNS="$(CURDIR)/runs/smoke" $(BIN)/python -m pytest tests notebooks \
	  --ignore notebooks/train.ipynb --ignore notebooks/evaluate.ipynb \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout 300 \
	  --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --durations 15

lab: setup ## open the chapters in JupyterLab
	@$(BIN)/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks

explorer: setup ## open the caption explorer as a page; a kernel ends when nobody has used it for half an hour
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/python -m voila notebooks/explorer.ipynb \
	  --MappingKernelManager.cull_idle_timeout=1800 --MappingKernelManager.cull_interval=60 \
	  --MappingKernelManager.cull_connected=True

figures: setup ## rebuild the figures of README and chapters
	@$(BIN)/t2i figures

clean: ## remove .venv, caches and executed copies; data and training runs stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis t2ilib.egg-info runs/course runs/smoke
	find t2ilib tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +
