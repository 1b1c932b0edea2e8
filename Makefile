# make demo      set up, then train, validate, predict and export a small SGDM detector
# make test      set up, then lint and test
# make quick     the tests of up to two seconds each
# make long      the longer tests, which make test leaves out
# make lint      style and types: what the pre-commit hook and CI run
# make docs      build the site into site/
# make browser   bring Chromium (apt-get) and the page's packages (npm), which tests/test_web.py needs
# make versions  the whole suite on the oldest and the newest supported versions, in environments of their own
# make stock     Ultralytics' own tests with and without this package, which must end alike
# make dist      build sdist and wheel, and test the sdist from its unpacked folder in a clean environment
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
PIP = $(BIN)/pip install --disable-pip-version-check

.PHONY: demo test quick long lint docs browser versions stock dist clean

demo: $(VENV)/installed-export
	$(BIN)/python scripts/demo.py

test: $(VENV)/installed-test lint examples/web/node_modules
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow and not long"

long: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 -m long

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Not with -q, which keeps warnings from being counted.
docs: $(VENV)/installed-test
	$(BIN)/python -m mkdocs build --strict
	@echo "site/index.html"

browser: examples/web/node_modules
	command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }

# What npm cannot bring, because it is not there or has no connection, is a skipped test with its reason.
examples/web/node_modules: examples/web/package.json
	-command -v npm >/dev/null && npm install --prefix examples/web --no-audit --no-fund --silent

versions: $(VENV)/installed-test
	$(BIN)/python scripts/check_versions.py

stock: $(VENV)/installed-test
	$(BIN)/python scripts/check_stock.py

dist: $(VENV)/installed-test
	rm -rf dist
	$(PIP) build
	$(BIN)/python -m build --outdir dist .
	tar -x -z -f dist/*.tar.gz -C dist
	$(MAKE) -C dist/ultralytics_sgdm-*/ test

$(VENV)/installed-export: setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[export]"
	touch $@

$(VENV)/installed-test: setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[export,test]"
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
