# Every target works on a fresh machine with Python >= 3.11: the virtual environment is made when it is missing.
# `make demo` and `make test` are the two commands of the README; CI calls the same targets (.ci/run).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/tiny
WORKERS ?= 2  # processes of the test suite; each takes some 3 GB

.PHONY: demo test test-slow smoke lint lock format clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# A stamp a set of packages, so that pip runs again only when the project file changed.
$(VENV)/.ready-run: $(BIN)/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet -c requirements.lock -e .
	touch $@

# torch serves the parity tests alone; installed first so that nothing else chooses its version.
$(VENV)/.ready-test: $(BIN)/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet -c requirements.lock torch
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[test]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-test
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[test,dev]'
	touch $@

demo: $(VENV)/.ready-run  ## FGRPO on the built-in world from the shipped policy: minutes on two cores
	$(BIN)/python -m fgrpo_jax.train --config=configs/tiny.py --workdir=$(WORKDIR)

test: $(VENV)/.ready-test  ## the whole suite but the tests marked slow
	$(BIN)/python -m pytest -q -n $(WORKERS)

test-slow: $(VENV)/.ready-test  ## the tests marked slow: mutations, long runs
	$(BIN)/python -m pytest -q -m slow

smoke: $(VENV)/.ready-run  ## two steps of training, to see that the machine can do it at all
	$(BIN)/python -m fgrpo_jax.train --config=configs/tiny.py --workdir=runs/smoke --overwrite \
	  --config.num_steps=2 --config.eval.examples=8 --config.data.prompts_per_step=8 \
	  --config.rollout.batch_prompts=8 --config.algorithm.micro_batch_prompts=4

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.ready-dev  ## newest versions within the bounds of pyproject.toml, for every platform; torch's own CUDA wheels are left to torch
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header --upgrade \
	  --extra test --extra dev --extra server --extra report pyproject.toml | grep -v '^nvidia\|^cuda\|^triton' > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
