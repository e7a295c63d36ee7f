# make up      sets everything up and runs it, with a sample corpus the first time
# make test    sets everything up and runs every test that this machine can
# make eval    sets up evaluation of releases (plumbline eval)
# make check   format, lint, types and the import rule; no server needed
# make bench   embedding and search rates, on an instance of its own
# make stop    stops the instance that `make up` started
# make lock    resolves the versions anew
# make clean   removes what make made, but never the data in .plumbline
#
# PYTHON=/path/to/python3.11 chooses the interpreter (else the fastest build that is here); ARGS="--port 9000" goes to the command.

PYTHON ?=
ARGS ?=
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help up test eval check bench stop clean lock install install-test

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

install:
	@deploy/install.sh run

install-test:
	@deploy/install.sh test

eval:
	@deploy/install.sh eval

up: install
	@exec .venv/bin/plumbline up $(ARGS)

test: install-test
	@deploy/test.sh $(ARGS)

check: install-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: install-test
	@PYTHONPATH=. .venv/bin/python tests/load/bench.py $(ARGS)

stop:
	@if [ -x .venv/bin/plumbline ]; then .venv/bin/plumbline stop $(ARGS); else echo "Nothing is installed."; fi

lock:
	@deploy/lock.sh

clean:
	rm -rf .venv .venv-vllm .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find app ingestion retrieval llm eval tests -name __pycache__ -type d -prune -exec rm -rf {} +
