# make audit: install into .venv and audit the embedded data set. make test: install, and run every test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: audit check test test-long lint clean

audit: .venv/installed
	@$(BIN)/python -m memleak unlock
	$(BIN)/snakemake --cores all --quiet host reason rules
	@echo
	@cat logs/report/*.log
	@echo "report: results/index.html"

# lint, types, and the tests that need no workflow
check: .venv/installed-test lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not workflow and not slow and not long"

test: .venv/installed-test lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

test-long: .venv/installed-test
	$(BIN)/python -m pytest -m "long" --durations=0

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow

# the pins are installed anew when they change; memleak itself is linked, not copied
.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

.venv/installed-test: .venv/installed requirements-test.lock
	$(BIN)/python -m pip install --quiet --requirement requirements.lock --requirement requirements-test.lock
	@touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
