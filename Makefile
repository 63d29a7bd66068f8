# make demo      install, convert the embedded default for a phone and for this computer, ask each a question
# make test      the test suite (under 15 minutes on two cores)
# make test-slow the proof at full size: 3.8B parameters in bounded memory (20 GB of disk)
# make tools     Debian's programs for Android packages and the apps' tests (as root); tests skip what is not there
# make lint      ruff and mypy
# make bench     side by side with the incumbents
PYTHON ?= python3
# The CPU build is all that is needed. Where PyPI gives the CUDA build, this takes the small one:
#   make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
BIN := .venv/bin
# llama-cpp-python is source only. These leave out what edge never loads (multimodal, tools, server): the build
# takes about half of its default time.
LLAMA := CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF" \
	SKBUILD_BUILD_TARGETS="llama;ggml;ggml-base;ggml-cpu;llama-common"
QUESTION := What is the capital of France?

DEBIAN := aapt apksigner zipalign dexdump android-framework-res openjdk-17-jdk-headless \
	qemu-user-static chromium fonts-dejavu-core fonts-noto-color-emoji gcc

.PHONY: demo test test-slow tools lint bench clean

demo: .venv/.demo
	$(BIN)/edge convert smollm2-135m-instruct --target android
	$(BIN)/edge convert smollm2-135m-instruct --target cpu
	$(BIN)/edge chat "$(QUESTION)" -m bundles/smollm2-135m-instruct-android </dev/null
	$(BIN)/edge chat "$(QUESTION)" -m bundles/smollm2-135m-instruct-cpu </dev/null

test: .venv/.dev .venv/.encoders
	EDGE_ENCODERS_PYTHON=$(CURDIR)/.venv/encoders/bin/python \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: .venv/.dev .venv/.encoders
	EDGE_ENCODERS_PYTHON=$(CURDIR)/.venv/encoders/bin/python \
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -s -m slow

tools:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN) >/dev/null

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/python -m benchmarks.convert

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml setup.py quant/kernel.c quant/kernel_tile.h quant/plane.c
	@echo "Installing edge; compiling llama.cpp takes about 5 minutes on two cores, once."
	$(LLAMA) $(BIN)/python -m pip install --quiet -e ".[gguf]"
	touch $@

# optimum's exporter takes an older transformers than the tests of quant/: encoders are exported in its own environment.
.venv/.encoders: .venv/.dev
	$(PYTHON) -m venv .venv/encoders
	.venv/encoders/bin/python -m pip install --quiet $(TORCH)
	.venv/encoders/bin/python -m pip install --quiet -e ".[encoders]"
	touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e ".[gguf,npu,dev]"
	touch $@

clean:
	rm -rf .venv .bench build bundles *.egg-info quant/*.so
