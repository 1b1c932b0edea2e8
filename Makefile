# make demo   set up, then train, validate, predict and export a small SGDM detector
# make test   set up, then lint and test
# make lint   the checks that CI and the pre-commit hook run
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/installed-export
	$(BIN)/python scripts/demo.py

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/installed-export: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -e ".[export]"
	touch $@

$(VENV)/installed-test: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -e ".[export,test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
