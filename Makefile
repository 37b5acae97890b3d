# `make train` sets up .venv, trains DQN on CartPole-v1 and says what next; CONTRIBUTING.md lists the other targets.
# PYTHON chooses the interpreter (>= 3.11); constraints.txt pins every package.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GAMES := $(VENV)/.installed-games
SCORES := $(VENV)/.installed-scores

# Compiling all that is installed takes nearly as long as installing it; Python compiles what is imported, once.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 \
  $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile) -c constraints.txt -e

.PHONY: train test test-all lint check bench bench-gpu bench-render scale saving sweep-cost results family recipes mutants faults same-numbers clean
.DEFAULT_GOAL := train

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("rltrain needs Python >= 3.11, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes minutes)"
	@$(INSTALL) '.[dev,render,tune]'
	@touch $@

# MinAtar brings pandas and scipy along, 240 MB: only what tests everything installs the games.
$(GAMES): $(STAMP)
	@$(INSTALL) '.[minatar,atari,slurm]'
	@touch $@

# The environments that the tables of scores are of.
$(SCORES): $(STAMP)
	@$(INSTALL) '.[box2d,mujoco,minatar]'
	@touch $@

train: $(STAMP)
	@$(BIN)/rltrain algo=dqn env=CartPole-v1
	@echo
	@echo "What next:  source $(BIN)/activate, then"
	@echo "  tensorboard --logdir outputs                look at the curves"
	@echo "  rltrain evaluate                            100 greedy episodes of the newest run"
	@echo "  rltrain algo=reinforce env=Acrobot-v1       another algorithm, another environment"
	@echo "  rltrain --help                              everything else"

# Tests side by side, one process per core. A module's tests stay together until a process has nothing left to do.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: $(STAMP)
	@$(PYTEST)

test-all: $(GAMES)
	@$(PYTEST) -m 'not faults'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(GAMES) lint
	$(PYTEST)

REV ?= main
same-numbers: $(STAMP)
	@$(BIN)/python tests/same_numbers.py $(REV)

ROUNDS ?= 3
bench: $(STAMP)
	@$(BIN)/python -m benchmarks.speed --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY))

bench-gpu: $(STAMP)
	@$(BIN)/python -m benchmarks.gpu

bench-render: $(STAMP)
	@$(BIN)/python -m benchmarks.speed --render

scale: $(STAMP)
	@$(BIN)/python -m benchmarks.scale
	@$(BIN)/python -m benchmarks.speed --render

saving: $(STAMP)
	@$(BIN)/python benchmarks/saving.py

sweep-cost: $(STAMP)
	@$(BIN)/python benchmarks/sweep_cost.py

results: $(SCORES)
	@$(BIN)/python benchmarks/results.py results $(if $(ONLY),--only '$(ONLY)')

family: $(SCORES)
	@$(BIN)/python benchmarks/family.py $(if $(ONLY),--only '$(ONLY)')

recipes: $(STAMP)
	@$(BIN)/python benchmarks/results.py recipes

mutants: $(GAMES)
	@$(BIN)/python tests/mutants/run.py

faults: $(STAMP)
	@$(BIN)/python -m pytest -m faults

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
