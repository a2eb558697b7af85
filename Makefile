# `make run` and `make test`: all the set-up there is. The versions stand in constraints.txt.

# The first Python here that all three frameworks support.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3 python,$(shell \
	$(name) -c 'import ensurepip, sys, venv; assert (3, 11) <= sys.version_info[:2] <= (3, 13)' \
	2>/dev/null && echo $(name))))
TORCH := $(shell grep '^torch==' constraints.txt)
BIN := .venv/bin

# Its lowest versions too; a torch of that age comes with CUDA, where no index has the CPU build.
OLDEST ?= $(firstword $(foreach name,python3.10 python3.11 python3.12,$(shell \
	$(name) -c 'import ensurepip, venv' 2>/dev/null && echo $(name))))
LOWEST ?= .venv-lowest

.PHONY: run test test-lowest check docs format clean

run: .venv/installed
	$(BIN)/lockstep run

# The processes share the cores: threads of one would only wait for another's.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST)

test-lowest: $(LOWEST)/installed
	PYTHONPATH=tests/installing $(LOWEST)/bin/python -m pytest -n 2 -rxs -p left_out \
		tests/oracle tests/problem tests/diagnosis tests/workers tests/cli tests/installing/lowest.py $(PYTEST)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check lockstep tests benchmarks docs gallery
	$(BIN)/ruff format --check --config 'line-length = 62' *_impl
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

# Open build/docs/index.html.
docs: .venv/installed
	$(BIN)/sphinx-build -W -q -n docs build/docs

format: .venv/installed
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q lockstep tests benchmarks docs gallery
	$(BIN)/ruff format -q --config 'line-length = 62' *_impl

clean:
	rm -rf .venv $(LOWEST) build *.egg-info

# A plain torch brings gigabytes of CUDA on Linux. Where pip sees no CPU build, uv knows the index that has one.
.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "lockstep: install Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt install python3-venv), then run make again"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --only-binary torch '$(TORCH)+cpu' 2>/dev/null || { $(BIN)/pip install --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu '$(TORCH)'; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[pytorch,tensorflow,jax,mistakes,style,test,docs]'
	@touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	@test -n "$(OLDEST)" || { echo "lockstep: install Python 3.10, 3.11 or 3.12 with its venv module, then run make again"; exit 1; }
	$(OLDEST) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --constraint constraints-lowest.txt --editable '.[pytorch,tensorflow,jax,mistakes,test]'
	@touch $@
