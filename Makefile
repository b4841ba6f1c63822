PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-slow quality format clean

# The versions of constraints.txt; run again when what is installed may have changed.
$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,evaluation,bert-score,baselines,demo,mocap,video]"
	touch $@

# Data, both training stages, captions of unseen motions: five to eight minutes on two CPU cores.
quickstart: $(INSTALLED)
	$(BIN)/geomotiongpt quickstart
	@echo "  before that    source $(BIN)/activate   (make installs into $(VENV))"

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" tests

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow tests

quality: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
