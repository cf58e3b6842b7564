# Everything a contributor types. `make demo` and `make test` set up what they need themselves, inside this folder.
# PYTHON=/path/to/python3 chooses the interpreter; PYTEST_ARGS="-k breaker -x" is handed to pytest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check crash kernels bpf mutants bench docs lock clean

BIN := .venv/bin
PYTEST_ARGS ?=
# Which kernels `make kernels` boots: of 5.10, 6.1, 6.12 and newest, all when empty.
KERNELS ?=
# Which cores `make mutants` changes; all when empty.
MUTANTS ?=
# Runs of the demo and of the tests stay in this folder too.
export SQUALL_STATE ?= $(CURDIR)/.cache/state
# So that no file of the user's own Python is read, and warnings of tools do not hide in a pager.
unexport PYTHONPATH PYTHONHOME

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## watch a shop of microservices fall over under a real fault, and learn to ride it out (two and a half minutes)
	@tools/setup base
	@$(BIN)/squall demo

test: ## every test, with branch coverage held at its floor (half an hour)
	@tools/setup test
	@$(BIN)/python tools/debian-cache tests || true
	@$(BIN)/python tools/debian-cache lab || true
	@$(BIN)/python tools/debian-kernels 6.1 >/dev/null || true
	@tools/debian-cache install || true
	@tools/test-all $(PYTEST_ARGS)

test-fast: ## the tests that take about a second at most (under 90 s in all)
	@tools/setup dev
	@$(BIN)/pytest --hypothesis-profile=fast -m "not slow and not crash" $(PYTEST_ARGS)

check: ## what needs no run: style, types, layers, house rules
	@tools/setup dev
	@tools/check

crash: ## the whole crash matrix: every action, every point, every way to die
	@tools/setup dev
	@SQUALL_CRASH=all $(BIN)/pytest -m crash $(PYTEST_ARGS) tests/crash

kernels: ## boot Debian's kernels (5.10 to the newest) in QEMU, see what works there, run the kernel tests; needs root
	@tools/setup dev
	@tools/test-kernels $(KERNELS)

mutants: ## change the cores of the patterns in small ways, and see whether the tests notice (MUTANTS="breaker trials")
	@tools/setup mutants
	@$(BIN)/python tools/test-mutants $(MUTANTS)

bench: ## measure against the peers; results go to docs/benchmarks.md
	@tools/setup test
	@$(BIN)/python tools/debian-cache tests || true
	@$(BIN)/python tests/benchmarks/run.py

bpf: ## build the kernel programs anew from bpf/ (needs clang-14, llvm-14, libbpf-dev)
	@tools/build-bpf
	@tools/build-native

docs: ## build the documentation into docs/_build/html, warnings being errors
	@tools/setup docs
	@$(BIN)/sphinx-build -E -W -n --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

lock: ## lock the dependencies anew (LOCK_FLAGS=--upgrade takes newer versions)
	@tools/lock

clean: ## remove what the targets above made: .venv, .cache, build results
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	rm -rf .coverage* build dist docs/_build docs/reference/generated
	find src tests demo tools docs -name __pycache__ -type d -prune -exec rm -rf {} +
