# Every target makes what it needs, .venv included; only Python 3.10+ and a C compiler have to be there.
#
#   make demo                                   the whole chain on a synthetic corpus -> out/demo/report.html
#   make test PIP_ARGS='--index-url URL'        options for every pip install
#   make native PYTHON=python3.12               the Python that .venv is made from

PYTHON ?= python3
PIP_ARGS ?=
VENV ?= .venv
BIN = $(VENV)/bin
# Tests import ONNX Runtime directly too; newer builds of it report home unless told not to.
export ORT_DISABLE_TELEMETRY = 1
CMAKE = $(BIN)/cmake
# A process per core, at most four: each holds torch.
PYTEST = $(BIN)/python -m pytest -q -n auto --maxprocesses=4 --dist
PACKAGES = runtime jetson training calibration compile cli
C_SOURCES := CMakeLists.txt $(wildcard runtime/native/include/*.h runtime/native/src/*.[ch] runtime/native/cmake/*)
LIBRARY := runtime/native/libsage.$(if $(filter Darwin,$(shell uname -s)),dylib,so)
INSTALLED = $(VENV)/.installed
# ThreadSanitizer of older compilers cannot run under the widest address randomisation.
FIXED_ADDRESSES := $(shell setarch -R true 2>/dev/null && echo setarch -R)

.PHONY: help demo test trt-bindings test-slow test-c test-aarch64 test-python e2e-vm fuzz lint native bench clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo       synthetic corpus -> training -> INT8 bundle -> report, into out/demo (minutes)"
	@echo "make test       the fast tests"
	@echo "make test-slow  the tests that take minutes, the README's quick start among them"
	@echo "make test-c     the C tests under ASan + UBSan and under TSan"
	@echo "make test-aarch64  the wheel, the C tests, the runtime and a whole bundle on an emulated AArch64"
	@echo "make test-python PYTHON=python3.10  the runtime's and the board's tests on the Python of JetPack 6"
	@echo "make e2e-vm     a whole board, emulated: first boot, service, unplugged camera, updates (root, minutes)"
	@echo "make fuzz       what reads bytes and names, each for FUZZ_SECONDS=600 (needs clang with libFuzzer)"
	@echo "make lint       ruff and mypy"
	@echo "make native     libsage into runtime/native, for development"
	@echo "make bench      every benchmark, as a table"
	@echo "make clean      remove what these made, but .venv; distclean: that too"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $$($(PYTHON) --version), need 3.10 or newer: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing sage-edge and what it needs into $(VENV): a minute or more the first time"
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[train,compile,modelopt,dev]'
	@touch $@

# Moved into place, never written over: a process that has the old one loaded keeps it.
$(LIBRARY): $(INSTALLED) $(C_SOURCES)
	@mkdir -p build
	@echo "building $@"
	@{ $(CMAKE) -S . -B build/native -DCMAKE_BUILD_TYPE=Release && $(CMAKE) --build build/native; } > build/native.log 2>&1 || \
	  { cat build/native.log; exit 1; }
	@cp build/native/$(notdir $@) build/$(notdir $@).new && mv -f build/$(notdir $@).new $@

native: $(LIBRARY)

demo: $(LIBRARY)
	$(BIN)/sage-edge demo --out out/demo

# TensorRT's Python bindings (3.5 MB, no TensorRT in them), which the contract tests hold our code to; offline those tests are skipped.
trt-bindings: $(INSTALLED)
	@$(BIN)/python tests/trt/fetch.py $(PIP_ARGS)

test: $(LIBRARY) trt-bindings
	$(PYTEST) loadfile -m "not slow and not gpu and not jetson"

SLOW ?= slow
# The quick start by itself: it trains with a thread per core, which others on the same cores make many times slower.
test-slow: $(LIBRARY)
	$(BIN)/python -m pytest -q -m "$(SLOW) and not gpu and not jetson" tests/test_readme.py
	$(PYTEST) worksteal -m "$(SLOW) and not gpu and not jetson" --ignore tests/test_readme.py

test-c: $(INSTALLED)
	@for kind in address,undefined thread; do \
	  folder=build/test-c-$${kind%%,*}; \
	  echo "C tests with -fsanitize=$$kind"; \
	  $(CMAKE) -S . -B $$folder -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSAGE_TESTS=ON -DSAGE_SANITIZE=$$kind > /dev/null && \
	  $(CMAKE) --build $$folder -j 2 > $$folder/build.log 2>&1 || { cat $$folder/build.log; exit 1; }; \
	  $(FIXED_ADDRESSES) $(BIN)/ctest --test-dir $$folder --output-on-failure --no-tests=error || exit 1; \
	done

# What is missing is named with its apt line; downloads are kept in build/aarch64.
test-aarch64: $(LIBRARY)
	@$(BIN)/python tests/aarch64/run.py $(PIP_ARGS)

# A Python of its own, as a board has it: make test-python PYTHON=python3.10
test-python: $(LIBRARY)
	@$(PYTHON) tests/pythons/run.py $(PIP_ARGS)

# Needs root for the board's file system; the log is build/e2e-vm/e2e.log.
e2e-vm: $(LIBRARY)
	@$(BIN)/python tests/vm/e2e.py

FUZZ_SECONDS ?= 600
PARSERS = camera microphone sink smoothing manifest ranges
# Inputs that break something are left in build/fuzz/found.
fuzz: $(INSTALLED)
	$(CMAKE) -S . -B build/fuzz -DCMAKE_C_COMPILER=clang -DSAGE_FUZZ=ON > /dev/null
	$(CMAKE) --build build/fuzz -j 2 > build/fuzz/build.log
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt atheris
	@mkdir -p build/fuzz/found
	@cd build/fuzz/found && for target in ../runtime/native/fuzz/*_fuzz; do \
	  echo "$$(basename $$target): $(FUZZ_SECONDS) s"; \
	  $$target -max_total_time=$(FUZZ_SECONDS) -max_len=2000 > ../$$(basename $$target).log 2>&1 || { tail -30 ../$$(basename $$target).log; exit 1; }; \
	done
	@cd build/fuzz/found && for name in $(PARSERS); do \
	  echo "$$name: $(FUZZ_SECONDS) s"; \
	  $(abspath $(BIN))/python ../../../tests/fuzz/parsers.py $$name -max_total_time=$(FUZZ_SECONDS) -max_len=1000 > ../$$name.log 2>&1 || \
	    { tail -30 ../$$name.log; exit 1; }; \
	done

lint: $(INSTALLED)
	@mkdir -p typings/sage_edge
	@for package in $(PACKAGES); do ln -sfn ../../$$package typings/sage_edge/$$package; done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES:%=typings/sage_edge/%) benchmarks

bench: $(LIBRARY)
	@for name in $$($(BIN)/python benchmarks/run.py --list); do $(BIN)/python benchmarks/run.py $$name || exit 1; done

clean:
	rm -rf build dist typings out/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis $(LIBRARY)
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
