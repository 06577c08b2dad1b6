# Everything from a fresh machine: `make demo`, `make test`. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= cpu
ARGS ?=
BIN := $(VENV)/bin
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-slow check docs format clean install

demo: install
	$(BIN)/vgid demo --out runs/demo --overwrite $(ARGS)

test: install
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: install
	$(BIN)/pytest -n 2 --dist loadfile -m "slow or not slow"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py tests/docs/test_words.py tests/docs/test_readme.py
	$(BIN)/zensical build --strict

docs: install
	$(BIN)/zensical build --strict
	@echo site/index.html

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs site .cache .mypy_cache .ruff_cache .pytest_cache dist

install: $(VENV)/installed-$(TORCH)

# The CPU build of torch comes from PyTorch's own index (the package index's build brings gigabytes of GPU libraries);
# where that index cannot be reached, pip's default index is asked.
$(VENV)/installed-$(TORCH): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if [ "$(TORCH)" = cpu ]; then \
	  $(BIN)/pip install -q --disable-pip-version-check --retries 0 --timeout 10 -c constraints.txt --index-url $(CPU_INDEX) torch 2>/dev/null \
	  || { echo "PyTorch's CPU index cannot be reached; taking torch from the default index"; \
	       $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch; }; \
	fi
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	touch $@
