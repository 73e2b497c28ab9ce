# Two commands do everything on a fresh machine that has Python 3.11 or 3.12 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.current
SOURCES := src tests benchmarks docs examples

DATA ?= ../shared/data

.PHONY: demo test test-all torture check format docs bench-methods clean

demo: $(STAMP)
	$(BIN)/selftaught demo

test: $(STAMP)
	$(BIN)/python -m pytest

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 3600

# A hundred kills at random moments; about half an hour on two cores.
torture: $(STAMP)
	$(BIN)/python -m tests.torture

check: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/python docs/make_methods.py --check

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(STAMP)
	$(BIN)/python docs/make_methods.py
	test ! -e benchmarks/results/methods.jsonl || $(BIN)/python docs/make_benchmarks.py

# Hours; stop it whenever you like: it goes on where it stopped. DATA is a folder of data sets (benchmarks/methods.py).
bench-methods: $(STAMP)
	$(BIN)/python benchmarks/methods.py $(DATA)
	$(BIN)/python docs/make_benchmarks.py

# Reused as long as neither file has changed since it was made; a half-made environment leaves no stamp.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 12) else f"selftaught needs Python 3.11 or 3.12, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache
