# `make demo` and `make test` work on a fresh machine: git, make, Python 3.11 or 3.12.
# `make paper` needs what the paper needs: recordings, checkpoints, images, data sets.
# `make mini-paper IMAGES=DIR` needs a folder of images: docs/mini-paper.md.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
# Of the paper; its miniature is a grid of its own.
PAPER := $(filter-out analyses/mini_paper.py, \
  $(wildcard benchmarks/*.py analyses/*.py figures/*.py))
# A recording is a file or a published name.
located = $(if $(wildcard $(1)),$(abspath $(1)),$(1))
# One thread each: torch's own threads would fight over the cores. Each worker takes its
# part of the tests, so that what a module shares is made once, then helps out. Processes
# share what one has compiled, whatever the shell says.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --dist worksteal
# An extra, by uv in a third of pip's time; by pip where uv finds no packages, as behind
# a mirror that only pip's configuration names. Modules are compiled here, once.
install = $(BIN)/python -m uv pip install -q --compile-bytecode --python $(BIN)/python \
    -c constraints.txt -e '.[$(1)]' \
  || $(BIN)/python -m pip install -q --disable-pip-version-check \
    -c constraints.txt -e '.[$(1)]'

.PHONY: demo gallery paper mini-paper test check coverage docs setup clean

demo: setup
	@$(BIN)/ce-align demo --out demo

# The pictures of docs/gallery, from the demonstration and `make mini-paper`.
gallery: demo
	@$(BIN)/python docs/gallery.py

# Every recipe; what is not at hand is named, the rest is done, and again is a resume.
paper: setup
	@status=0; \
	$(BIN)/ce-align run $(PAPER) || status=$$?; \
	$(BIN)/ce-align report --out paper-figures/report.html || exit $$?; \
	exit $$status

# The whole grid on networks trained here, into the folder mini-paper; again is a resume.
mini-paper: setup
	@if [ ! -d "$(IMAGES)/train" ] || [ ! -d "$(IMAGES)/val" ]; then \
	  echo "error: expected a folder with train/CLASS/ and val/CLASS/, found" \
	    "'$(IMAGES)'; say make mini-paper IMAGES=DIR (docs/mini-paper.md)" >&2; exit 2; \
	fi
	@export CE_ALIGN_MINI_IMAGES="$$(cd "$(IMAGES)" && pwd)"; \
	export CE_ALIGN_MINI_PRESET="$(PRESET)"; \
	export CE_ALIGN_MINI_RECORDINGS="$(foreach name,$(RECORDINGS),$(call located,$(name)))"; \
	mkdir -p mini-paper && cd mini-paper || exit 2; \
	status=0 ce_align="$(abspath $(BIN))/ce-align"; \
	$$ce_align run ../analyses/mini_paper.py --out figures || status=$$?; \
	$$ce_align report --out report.html || exit $$?; \
	exit $$status

# Types are checked, by one process, while the tests run.
test: lint
	@$(MAKE) --no-print-directory -j 2 types every

# The quick part, for the edit loop.
check: lint
	@$(MAKE) --no-print-directory -j 2 types quick

.PHONY: every quick
# Three workers keep two cores at work, for some tests wait for other processes.
every: setup
	@$(PYTEST) -n 3

quick: setup
	@$(PYTEST) -n 2 -m "not slow and not real"

# Which lines and branches the tests go through; numba's kernels run as Python.
coverage: setup
	@$(PYTEST) -n 3 --cov --cov-report=term --cov-report=html:coverage

# Every damaged or hostile input, each in a process of its own: a few minutes.
.PHONY: hostile
hostile: setup
	@cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m hostile $(ARGS)

# The site, to docs/_build/html; its blocks and notebooks are run.
docs: $(VENV)/docs-installed
	@$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/docs-installed: $(INSTALLED)
	@$(call install,docs)
	@touch $@

# Which faults, one put into the numerical code at a time, the tests find: a sample of each
# module, about an hour; again is a resume. ARGS="--seed 2 bures" draws others.
.PHONY: mutants
mutants: $(VENV)/mutants-installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.mutants $(ARGS)

$(VENV)/mutants-installed: $(INSTALLED)
	@$(call install,mutants)
	@touch $@

# Ours and peers' in one table, in half an hour; again is a resume. SPEED names it.
.PHONY: speed
SPEED := speed.md
speed: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed --out $(SPEED)

.PHONY: lint types
lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .

types: setup
	@$(BIN)/mypy

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@python=; for candidate in $(or $(PYTHON),python3.11 python3.12 python3 python); do \
	  if $$candidate -c '$(SUPPORTED)' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: expected Python 3.11 or 3.12 with venv, found neither" \
	    "$(if $(PYTHON),at $(PYTHON),on this machine); install it, or name one:" \
	    "make PYTHON=/path/to/python3.11" >&2; exit 2; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version); the first time takes minutes"; \
	$$python -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	@$(call install,dev)
	@touch $@

clean:
	rm -rf $(VENV) dist demo
