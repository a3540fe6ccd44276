# Two commands need nothing but Python 3.11 or newer: `make demo` and `make test`.

PYTHON  ?= python3
WORKERS ?= 2
EXTRAS  ?= dev

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
BENCH := $(VENV)/.ready-bench
BUSY  := $(VENV)/.installing
RUN   := runs/quickstart
LOG   := $(VENV)/setup.log
# Modules are compiled when they are first imported; compiling all of them here would take half a minute more.
PIP   := $(PY) -m pip install --no-compile --progress-bar off --no-input -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-gpu lint format bench wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter for .venv, WORKERS=8 the processes of the tests,"
	@echo "  DLLM_DATA=FOLDER the real data for the tests that read some, EXTRAS=dev,eval what is set up at first."

setup: $(READY) ## make .venv with everything in it (the other commands do this by themselves)

demo: $(READY) ## train a small masked diffusion model on the built-in chat, and ask it questions it has not seen
	$(PY) -m dllm_lightning.train experiment=quickstart
	@printf '%s\n' 'Tell me three fruits.' 'From end to start: 1 3 8.' 'How much is 6 + 6?' 'In any new order: 4 3 1.' \
	  'What is different: green yellow hammer?' 'Which two numbers are between 3 and 7?' >$(RUN)/questions.txt
	$(PY) -m dllm_lightning.generate ckpt=$(RUN) prompts=$(RUN)/questions.txt

test: $(READY) ## every test that needs no GPU; with DLLM_DATA=FOLDER also those on real data
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not gpu"

test-fast: $(READY) ## the tests that take less than about five seconds each
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu"

test-gpu: $(READY) ## the tests that need a GPU, on all there are; without one each says that it is skipped
	$(PY) -m pytest -m gpu -rs

lint: $(READY) ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check -q . || { echo "make format mends this" >&2; exit 1; }
	$(PY) -m mypy

format: $(READY) ## lay out the code, sort the imports and mend what ruff can mend
	$(PY) -m ruff check --fix --exit-zero -q .
	$(PY) -m ruff format -q .

bench: $(BENCH) ## speed and memory of training and of decoding, side by side with the recipes that they grew from
	$(PY) tests/bench/training_speed.py
	$(PY) tests/bench/soft_tokens.py
	$(PY) tests/bench/nelbo_kernel.py
	$(PY) tests/bench/duo_step.py
	$(PY) tests/bench/decoding.py
	$(PY) tests/bench/answers.py $(RUN)

wheel: $(READY) ## dist/*.whl, with conf/ inside the package
	$(PY) -m hatchling build -t wheel

clean: ## remove builds and caches (the environment and runs/ stay)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# .installing stands in .venv while the set-up works. Where it is still standing, the last one was cut short, perhaps in
# the middle of a package, so that environment is removed and made anew. .ready is written last.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo 'not there')." \
	    "Name another: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@if [ -e $(BUSY) ]; then echo "The last set-up did not finish: starting over."; rm -rf $(VENV); fi
	@rm -f $(READY) $(BENCH)
	@mkdir -p $(VENV) && touch $(BUSY)
	@$(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m virtualenv -q $(VENV) 2>/dev/null || { \
	    echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv;" \
	      "elsewhere: $(PYTHON) -m pip install virtualenv" >&2; \
	    exit 1; }; }
	@echo "Setting up $(VENV) with torch and the rest: 1-3 minutes and 1.4 GB, more where torch comes with CUDA ..."
	@$(PIP) -e '.[$(EXTRAS)]' >$(LOG) 2>&1 || { grep '^ERROR' $(LOG) >&2; echo "The set-up failed; see $(LOG)" >&2; exit 1; }
	@rm -f $(BUSY)
	@touch $(READY)

$(BENCH): $(READY)
	@echo "Adding what the measurements need ..."
	@$(PIP) -e '.[bench]' >$(LOG) 2>&1 || { grep '^ERROR' $(LOG) >&2; echo "That failed; see $(LOG)" >&2; exit 1; }
	@touch $(BENCH)
