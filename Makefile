# Everything runs in .venv, made from requirements.lock. `make` lists the targets.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

# The real images and captions. Without them the book builds and the tests pass, less what needs them.
DEFAULT_DATA := ../shared/data
MGCA_DATA ?= $(DEFAULT_DATA)
ifneq ($(wildcard $(MGCA_DATA)),)
# Absolute, because notebooks run in their own folder.
override export MGCA_DATA := $(abspath $(MGCA_DATA))
DATA_NOTE := Real data: $(MGCA_DATA)
else ifeq ($(MGCA_DATA),$(DEFAULT_DATA))
unexport MGCA_DATA
DATA_NOTE := No folder $(DEFAULT_DATA): what needs real images is left out. Set MGCA_DATA to use yours.
else
$(error MGCA_DATA is $(MGCA_DATA), which does not exist)
endif

# The same sets and dictionaries in every run, and deterministic matrix products on a GPU.
export PYTHONHASHSEED := 0
export CUBLAS_WORKSPACE_CONFIG := :4096:8
# All weights come inside packages: a build that reaches for the network is a mistake, and says so.
export HF_HUB_OFFLINE := 1
# No module, no kernel, no setting and no start-up file from outside the environment.
unexport PYTHONPATH PYTHONHOME JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_NO_CONFIG := 1
export IPYTHONDIR := $(abspath _build/ipython)

LIBRARY := $(shell find mgca -type f -not -path '*/__pycache__/*')
# With its folders, whose time changes when a file in them is removed.
RESULTS := $(shell find results 2>/dev/null)
PAGES := $(shell find book -type f -not -path 'book/notebooks/*' -not -path '*/__pycache__/*')
NOTEBOOKS := $(patsubst notebooks/%.py,book/notebooks/%.ipynb,$(wildcard notebooks/*.py))
EXECUTED := $(patsubst notebooks/%.py,_build/executed/%.ipynb,$(wildcard notebooks/*.py))
ENVIRONMENT := $(VENV)/.mgca-installed
FIRST_PAGE := _build/html/index.html

.DELETE_ON_ERROR:
.PHONY: help book notebooks print test lint ablations bench verify clean distclean data-note

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: data-note $(FIRST_PAGE) ## execute the notebooks and build the book
	@echo "The book: $(abspath $(FIRST_PAGE))"

# Compares contents, not times; with FRESH=1 in the environment or on the command line it executes
# all notebooks, and they compute what they otherwise read from results/.
notebooks: data-note $(ENVIRONMENT) ## execute the notebooks that changed; all, anew, with FRESH=1
	$(BIN)/python book/_ext/execute.py

print: $(NOTEBOOKS) ## put the book on one page, and into a PDF where Chromium is installed
	$(BIN)/python book/_ext/one_page.py

test: data-note lint ## check the style and run the tests
	$(BIN)/pytest -n auto

lint: $(ENVIRONMENT) ## check the style, and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

ablations: $(ENVIRONMENT) ## compute what the tables of the scenes lack, JOBS runs at a time
	$(BIN)/mgca experiment run granularity areas k meta_points choices benchmarks \
		--scale scenes --jobs $(JOBS)

bench: data-note $(ENVIRONMENT) ## measure speed and memory, on a machine that does nothing else
	$(BIN)/python tests/speed/training.py
	$(BIN)/python tests/speed/inference.py
	$(if $(MGCA_DATA),$(BIN)/python tests/speed/evaluation.py --data "$(MGCA_DATA)")
	$(BIN)/python tests/speed/summary.py

verify: $(ENVIRONMENT) ## compute a part of the results from nothing, and compare
	$(BIN)/mgca experiment verify

clean: ## remove what was built, keep the environment
	rm -rf _build book/notebooks build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find mgca notebooks tests -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)

data-note:
	@echo "$(DATA_NOTE)"

$(VENV)/.lock-installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	v >= (3, 11) or sys.exit("mgca needs Python 3.11 or newer, $(PYTHON) is %d.%d: try make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages: some minutes the first time"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip check
	@touch $@

# Without isolation: the lock has installed the build backend already.
$(ENVIRONMENT): $(VENV)/.lock-installed pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# A page that came out as before keeps its time, and the book is not built again for it. What was
# executed again has another record all the same, which the page on the build's status tells.
$(NOTEBOOKS) $(EXECUTED): notebooks ;

# From scratch each time: an incremental build warns only of the pages that it reads again.
$(FIRST_PAGE): _config.yml CITATION.cff $(PAGES) $(NOTEBOOKS) $(EXECUTED) $(LIBRARY) $(RESULTS) $(ENVIRONMENT)
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build book --path-output . --config _config.yml -W -n --keep-going
