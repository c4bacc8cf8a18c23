# make run | test | test-slow | lint | rooms | docs: each sets up $(VENV) first when it has to. make clean: removes what these leave
# behind, but neither $(VENV) nor results.
#
#   make run ARGS="--methods zero-shot --shots 1"     flags for `bench run`; its table follows, but for --dry-run
#   make test PYTEST_ARGS="tests/stats -x"            flags for pytest; -m replaces the choice by `slow`, -n 0 has no workers
#   make PYTHON=python3.12 ...                        another interpreter (3.11 or newer)
#   make PIP_ARGS="--extra-index-url INDEX" ...       more flags for the installer, such as an index of CPU builds
#   make VENV_ARGS=--system-site-packages CONSTRAINTS= ...   use a torch that is already there

PYTHON ?= python3
VENV ?= .venv
VENV_ARGS ?=
CONSTRAINTS ?= constraints.txt
PIP_ARGS ?=
ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := -e '.[dev]' $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) $(PIP_ARGS)
# A worker for each core (tests/conftest.py says how many at most); a file's tests stay together, since they share what they made.
PARALLEL := -n auto --dist loadfile --benchmark-disable
MAIN_JOB := --methods zero-shot,tip-adapter-f,safe,safe-a --shots 1,16

.PHONY: help run test test-slow lint rooms docs clean
help:
	@echo "make run [ARGS=...]   measure (ARGS: flags for bench run), then print the table of what is recorded"
	@echo "make test             layout, ruff, mypy and the tests, without the slow ones"
	@echo "make test-slow        the slow tests: simulations, corruption, whole flows"
	@echo "make lint             layout (ruff format), ruff and mypy"
	@echo "make rooms            who imports whom, from the ground up, and that nothing goes round in a circle"
	@echo "make docs             the site of docs/, into build/docs"
	@echo "make clean            remove caches and build outputs (not $(VENV), not results)"

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fewshot-clip-bench needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
	  { test -x $(BIN)/pip || uv venv --seed --python $(PYTHON) $(VENV_ARGS) $(VENV); } && \
	  uv pip install --python $(BIN)/python $(INSTALL); \
	else \
	  { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV_ARGS) $(VENV); } && \
	  $(BIN)/python -m pip install $(INSTALL); \
	fi
	@touch $@

# The shell reads ARGS into its words, so that quotes mean what they do anywhere. After a run that recorded something (0, 1, 3)
# comes the table of the same results; the run's own status is the end's.
run: $(STAMP)
	@set -- $(if $(strip $(ARGS)),$(ARGS),$(MAIN_JOB)); \
	echo "bench run $$*"; $(BIN)/bench run "$$@"; status=$$?; \
	case $$status in 0|1|3) ;; *) exit $$status ;; esac; \
	results=; \
	while [ $$# -gt 0 ]; do \
	  case $$1 in \
	    --dry-run|--help) exit $$status ;; \
	    --results) results=$$2 ;; \
	    --results=*) results=$${1#*=} ;; \
	  esac; shift; \
	done; \
	set -- table $${results:+--results "$$results"}; \
	echo "bench $$*"; $(BIN)/bench "$$@"; shown=$$?; \
	[ $$status -ne 0 ] || status=$$shown; exit $$status

lint: $(STAMP)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

rooms: $(STAMP)
	@$(BIN)/python -m tests.imports

# The variable keeps MkDocs from advertising its successor in every build.
docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "the site is at build/docs/index.html"

test: lint
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find bench methods tests -name __pycache__ -type d -prune -exec rm -rf {} +
