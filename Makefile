# Two commands do all the set-up: `make demo` and `make test`. Both make the environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all format clean

demo: .venv/ready
	$(BIN)/podium demo

test: .venv/ready
	$(BIN)/ruff format --check pipeline tests notebooks configs benchmarks
	$(BIN)/ruff check pipeline tests notebooks configs benchmarks
	$(BIN)/mypy
	$(BIN)/pytest

# Tracing which lines run makes the tests a third longer, so it is done once, where all of them run.
test-all: .venv/ready
	$(BIN)/pytest -m "slow or not slow" --cov --cov-report=term:skip-covered --cov-fail-under=90

format: .venv/ready
	$(BIN)/ruff format pipeline tests notebooks configs benchmarks
	$(BIN)/ruff check --fix pipeline tests notebooks configs benchmarks
	$(BIN)/nbstripout notebooks/*.ipynb

clean:
	rm -rf .venv .cache runs build *.egg-info

# Made anew when the dependencies change; `ready` is written last, so that a broken installation is not taken for one.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch .venv/ready
