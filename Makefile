# Every target works on a fresh machine with Python >= 3.11: the virtual environment is made when it is missing.
# `make demo` and `make test` are the two commands of the README; CI calls the same targets (.ci/run).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/tiny
WORKERS ?= 2  # processes of the test suite; each takes some 3 GB

.PHONY: demo test test-slow smoke lint format clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# A stamp a set of packages, so that pip runs again only when the project file changed.
$(VENV)/.ready-run: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

# torch serves the parity tests alone; installed first so that nothing else chooses its version.
$(VENV)/.ready-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-test
	$(BIN)/python -m pip install --quiet -e '.[test,dev]'
	touch $@

demo: $(VENV)/.ready-run  ## FGRPO on the built-in world from the shipped policy: minutes on two cores
	$(BIN)/python -m fgrpo_jax.train --config=configs/tiny.py --workdir=$(WORKDIR)

test: $(VENV)/.ready-test  ## the whole suite but the tests marked slow
	$(BIN)/python -m pytest -q -n $(WORKERS)

test-slow: $(VENV)/.ready-test  ## the tests marked slow: mutations, long runs
	$(BIN)/python -m pytest -q -m slow

smoke: $(VENV)/.ready-run  ## two steps of training, to see that the machine can do it at all
	$(BIN)/python -m fgrpo_jax.train --config=configs/tiny.py --workdir=runs/smoke --overwrite \
	  --config.num_steps=2 --config.eval.examples=8 --config.data.prompts_per_step=8

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
