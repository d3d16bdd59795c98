# `make demo` and `make test` work on a fresh machine: git, make, Python 3.11 or 3.12.
# `make paper` needs what the paper needs: recordings, checkpoints, images, data sets.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
# Two workers, one thread each: torch's own threads would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

.PHONY: demo paper test check docs setup clean

demo: setup
	@$(BIN)/ce-align demo --out demo

# Every recipe; what is not at hand is named, the rest is done, and again is a resume.
paper: setup
	@status=0; \
	$(BIN)/ce-align run benchmarks/*.py analyses/*.py figures/*.py || status=$$?; \
	$(BIN)/ce-align report --out paper-figures/report.html || exit $$?; \
	exit $$status

test: setup
	@$(MAKE) --no-print-directory style
	@$(PYTEST)

# The quick part, for the edit loop.
check: setup
	@$(MAKE) --no-print-directory style
	@$(PYTEST) -m "not slow and not real"

# The site, to docs/_build/html; its blocks and notebooks are run.
docs: $(VENV)/docs-installed
	@$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/docs-installed: $(INSTALLED)
	@$(BIN)/python -m pip install -q --disable-pip-version-check \
	  -c constraints.txt -e '.[docs]'
	@touch $@

.PHONY: style
style: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@python=; for candidate in $(PYTHON) python3.11 python3.12 python3 python; do \
	  if $$candidate -c '$(SUPPORTED)' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: Python 3.11 or 3.12 with venv is needed and was not found;" \
	    "install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version); the first time takes minutes"; \
	$$python -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check \
	  -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo
