# Everything runs in .venv, made from requirements.lock; tests add requirements-test.lock to it.
# `make` lists the targets.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

# The real images and captions. Without them the book builds and the tests pass, less what needs them.
DEFAULT_DATA := ../shared/data
MGCA_DATA ?= $(DEFAULT_DATA)
# Absolute, because notebooks run in their own folder; by the shell, because make splits at spaces.
FOUND_DATA := $(shell cd "$(MGCA_DATA)" 2>/dev/null && pwd)
ifneq ($(FOUND_DATA),)
override export MGCA_DATA := $(FOUND_DATA)
DATA_NOTE := Real data: $(MGCA_DATA)
else ifeq ($(MGCA_DATA),$(DEFAULT_DATA))
unexport MGCA_DATA
DATA_NOTE := No folder $(DEFAULT_DATA): what needs real images is left out. Set MGCA_DATA to use yours.
else
$(error MGCA_DATA is $(MGCA_DATA), which does not exist)
endif

# The model of the page "Try it" is made beside the notebooks.
MAKEFLAGS += --jobs=2

# The same sets and dictionaries in every run, and deterministic matrix products on a GPU.
export PYTHONHASHSEED := 0
export CUBLAS_WORKSPACE_CONFIG := :4096:8
# Threads that wait give their processor up instead of turning: two notebooks, or the processes of the
# tests, have as many threads each as the machine has processors, and are many times slower otherwise.
export OMP_WAIT_POLICY := passive
# All weights come inside packages: a build that reaches for the network is a mistake, and says so.
export HF_HUB_OFFLINE := 1
# What was compiled is kept, whatever is set outside: each of the notebooks would compile PyTorch anew.
unexport PYTHONDONTWRITEBYTECODE
# No module, no kernel, no setting and no start-up file from outside the environment.
unexport PYTHONPATH PYTHONHOME JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_NO_CONFIG := 1
export IPYTHONDIR := $(CURDIR)/_build/ipython

LIBRARY := $(shell find mgca -type f -not -path '*/__pycache__/*')
# With its folders, whose time changes when a file in them is removed.
RESULTS := $(shell find results 2>/dev/null)
PAGES := $(shell find book -type f -not -path 'book/notebooks/*' -not -path '*/__pycache__/*')
NOTEBOOKS := $(patsubst notebooks/%.py,book/notebooks/%.ipynb,$(wildcard notebooks/*.py))
EXECUTED := $(patsubst notebooks/%.py,_build/executed/%.ipynb,$(wildcard notebooks/*.py))
ENVIRONMENT := $(VENV)/.mgca-installed
TESTS := $(VENV)/.tests-installed
FIRST_PAGE := _build/html/index.html
TRY := _build/try/about.json

.DELETE_ON_ERROR:
.PHONY: help book notebooks try vendor print quick test fuzz lint ablations bench verify rehearse lock
.PHONY: platforms lowest clean distclean data-note

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "make notebooks/NAME.ipynb: one notebook, for Jupyter and papermill; mgca ablate executes some"

book: data-note $(FIRST_PAGE) ## execute the notebooks and build the book
	@echo "The book: $(CURDIR)/$(FIRST_PAGE)"

# Compares contents, not times; with FRESH=1 in the environment or on the command line it executes
# all notebooks, and they compute what they otherwise read from results/.
notebooks: data-note $(ENVIRONMENT) ## execute the notebooks that changed; all, anew, with FRESH=1
	$(BIN)/python book/_ext/execute.py

# For Jupyter and papermill. Git ignores it: the source stays the .py.
notebooks/%.ipynb: notebooks/%.py $(ENVIRONMENT)
	$(BIN)/jupytext --quiet --from py:percent --to ipynb --output $@ $<

try: $(TRY) ## export the model and embed the words of the page "Try it"

vendor: $(ENVIRONMENT) ## write anew, with npm, the packages that the page "Try it" has from there
	$(BIN)/python book/_ext/try_vendor.py

print: $(NOTEBOOKS) ## put the book on one page, and into a PDF where Chromium is installed
	$(BIN)/python book/_ext/one_page.py

quick: $(TESTS) ## run the tests of losses, method and inference: under a minute
	$(BIN)/pytest -m "not slow" $(addprefix tests/,method losses inference utils)

test: data-note lint ## check the style and run the tests, with few inputs where they are random
	$(BIN)/pytest -n auto --durations=25 -m "not fuzz"

fuzz: data-note $(TESTS) ## fuzz at length whatever reads files
	MGCA_FUZZ=1 $(BIN)/pytest -n auto tests/fuzz

lint: $(TESTS) ## check the style, and which room imports which
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
	$(BIN)/mgca verify

rehearse: data-note $(ENVIRONMENT) ## go through the paper's scale in small: random weights, real images
	$(if $(MGCA_DATA),,$(error the rehearsal needs real images: set MGCA_DATA))
	$(BIN)/python tests/rehearsal/rehearse.py --data "$(MGCA_DATA)"

# Versions stay as they are where pyproject.toml allows it; UPGRADE=--upgrade takes the newest.
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-annotate --custom-compile-command "make lock" $(UPGRADE)
OF_CUDA := cuda-bindings cuda-pathfinder cuda-toolkit triton $(addprefix nvidia-,cublas cuda-cupti \
	cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 \
	nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
BESIDE_CUDA := $(addprefix --no-emit-package ,$(OF_CUDA))

lock: $(TESTS) ## write the locks anew from pyproject.toml
	$(COMPILE) $(BESIDE_CUDA) --all-extras pyproject.toml -o requirements-test.lock
	$(COMPILE) $(BESIDE_CUDA) $(addprefix --extra ,book benchmarks train onnx formats app) \
		--constraint requirements-test.lock pyproject.toml -o requirements.lock
	grep ^torch== requirements.lock | cut -d' ' -f1 | \
		$(COMPILE) --constraint requirements.lock -o requirements-cuda.lock -

# A wheel of every package for every machine and Python that torch has wheels for, but of the two that
# are built from their sources anywhere.
platforms: $(TESTS) ## see whether the locks can be installed on other machines and Pythons
	@set -e; for machine in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin \
	x86_64-pc-windows-msvc; do for python in 3.11 3.12 3.13 3.14; do \
	MACOSX_DEPLOYMENT_TARGET=14.0 $(BIN)/uv pip compile --quiet --no-config \
	--python-platform $$machine --python-version $$python -o /dev/null requirements-test.lock \
	$$(sed -n 's/==.*//p' requirements-test.lock | grep -v '^onedl-mm' | sed 's/^/--only-binary /'); \
	echo "$$machine, Python $$python: there"; done; done

LOWEST := _build/lowest
lowest: $(TESTS) ## run a part of the tests with the smallest versions that pyproject.toml allows
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/uv pip compile --quiet --no-config --resolution lowest-direct --no-annotate --no-header \
		$(addprefix --extra ,benchmarks train onnx formats app) -o $(LOWEST)/all.txt \
		--python-version 3.11 pyproject.toml tests/lowest.txt
	grep -v -E '^(nvidia|cuda|triton)' $(LOWEST)/all.txt > $(LOWEST)/versions.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check -r $(LOWEST)/versions.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --no-deps --editable .
	$(LOWEST)/bin/pytest -n auto -m "not slow" \
		$(addprefix tests/,method losses inference utils backbone weights training)

clean: ## remove what was built, keep the environment
	rm -rf _build book/notebooks build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find mgca notebooks tests -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)

data-note:
	@echo "$(DATA_NOTE)"

# Each lock names all that is needed at one version, with the hashes of its files, and no other file is
# installed. But the machine chooses the build of torch, with CUDA or without: its version is installed
# first, and pip then leaves it as it is. What a CUDA build needs besides stands apart, because other
# builds do not ask for it.
# Compiled are then only the modules that are imported, a third of them: it saves half a minute.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-compile
$(VENV)/.python: requirements.lock requirements-cuda.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	v >= (3, 11) or sys.exit("mgca needs Python 3.11 or newer, $(PYTHON) is %d.%d: try make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages: some minutes the first time"
	@touch $@

# Two halves at once, every second package in each: one pip unpacks on one processor, which takes
# twice as long.
HALVES := $(VENV)/.half-0 $(VENV)/.half-1
$(HALVES): $(VENV)/.half-%: $(VENV)/.python
	awk '/^[A-Za-z]/ { n++ } n % 2 == $*' requirements.lock > $(VENV)/half-$*.txt
	@! grep -q '^torch==' $(VENV)/half-$*.txt || $(INSTALL) $$(grep -o '^torch==[^ ]*' $(VENV)/half-$*.txt)
	$(INSTALL) --require-hashes -r $(VENV)/half-$*.txt
	@touch $@

$(VENV)/.lock-installed: $(HALVES)
	@! grep -q '^Requires-Dist: nvidia' $(VENV)/lib*/python*/site-packages/torch-*.dist-info/METADATA || \
	$(INSTALL) --require-hashes -r requirements-cuda.lock
	$(BIN)/python -m pip check
	@touch $@

# Without isolation: the lock has installed the build backend already.
# A double click in JupyterLab then opens a .py of notebooks/ as the notebook that it is.
$(ENVIRONMENT): $(VENV)/.lock-installed pyproject.toml
	$(INSTALL) --no-build-isolation --editable .
	@mkdir -p $(VENV)/etc/jupyter/labconfig
	$(BIN)/jupytext-config --settings-file \
		$(VENV)/etc/jupyter/labconfig/default_setting_overrides.json set-default-viewer python
	@touch $@

$(TESTS): $(ENVIRONMENT) requirements-test.lock
	$(INSTALL) --require-hashes -r requirements-test.lock
	$(BIN)/python -m pip check
	@touch $@

# A page that came out as before keeps its time, and the book is not built again for it. What was
# executed again has another record all the same, which the page on the build's status tells.
$(NOTEBOOKS) $(EXECUTED): notebooks ;

# The model alone: the scripts of the page are no part of it.
$(TRY): $(wildcard book/_ext/try_assets.py book/extra/try/words.txt mgca/weights/lite-* \
	$(addprefix mgca/,backbone/lite.py decoder.py inference/export.py prompts.py)) $(ENVIRONMENT)
	$(BIN)/python book/_ext/try_assets.py

# From scratch each time: an incremental build warns only of the pages that it reads again.
$(FIRST_PAGE): _config.yml CITATION.cff $(PAGES) $(TRY) $(NOTEBOOKS) $(EXECUTED) $(LIBRARY) $(RESULTS) $(ENVIRONMENT)
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build book --path-output . --config _config.yml -W -n --keep-going
