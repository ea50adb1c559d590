# One way to do a thing; `make help` lists the verbs. Everything runs in .venv, which `make setup` makes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
PY := .venv/bin/python
EXTRAS ?=
DATA ?= videos/
DEMO_ARGS ?=
REPRODUCE_ARGS ?=
QUICK ?=
FIRST := $(foreach task,drawer_open door_open button_press,$(task)-2-truth-relam-keypoints) \
  door_open-2-lucas_kanade-relam-keypoints_proprio
TINY := --out runs/quick --results runs/quick/results --num 8 --seeds 1 --total_env_steps 6000 --episodes 10 \
  --train_args "--eval_every 3000 --eval_episodes 10 --fit.num_steps 250 --diffusion.vq_steps 250 --diffusion.fit_steps 250"

.PHONY: help setup demo preprocess test test-upstream test-gpu lint bench bench-tracking bench-workers compare-perception reproduce-metaworld reproduce-maniskill sensitivity reproduce tables lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: ## virtual environment and pinned wheels; EXTRAS=tensorflow,torch,maniskill,ray adds those
	@.ci/setup "$(PYTHON)" "$(EXTRAS)"

demo: setup ## videos → keypoints → anticipation model → policy → runs/demo/report.html
	$(PY) -m preprocess_torch --data videos/drawer_open --out data/drawer_open
	$(PY) experiments/train.py --task drawer_open --out runs/demo --total_env_steps 40000 --resume $(DEMO_ARGS)
	$(PY) experiments/evaluate.py --run runs/demo
	$(PY) experiments/report.py runs/demo
	@echo "open runs/demo/report.html"

preprocess: setup ## videos to keypoint records: DATA=videos/drawer_open, or a folder of such folders
	$(PY) -m preprocess_torch --data "$(DATA)"

test: ## set-up and tests
	@$(MAKE) --no-print-directory setup EXTRAS=tensorflow
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(TESTS)

test-upstream: setup ## contract tests on CoTracker3's and EVF-SAM's own code: PY, RELAM_COTRACKER, RELAM_EVFSAM (docs/perception.md)
	OMP_NUM_THREADS=1 $(PY) -m pytest -rs --durations=0 tests/preprocess/test_upstream_cotracker.py \
	  tests/preprocess/test_upstream_evf_sam.py tests/preprocess/test_sam3.py

test-gpu: setup ## tests that need a CUDA device (skipped, with the reason, where there is none)
	JAX_PLATFORMS= $(PY) -m pytest -rs tests/gpu

lint: setup ## format, lint and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright

bench: setup ## speed of learning and stepping beside the machine's limit and other libraries
	@.ci/bench-setup "$(PYTHON)"
	$(PY) experiments/bench.py

bench-tracking: setup ## trackers without weights against the simulator's true tracks, 13 tasks
	$(PY) experiments/bench_tracking.py --tracker lucas_kanade
	$(PY) experiments/bench_tracking.py --tracker two_flows

bench-workers: setup ## what tracking costs with 1 and 2 workers, and 10,000 hours on paper
	$(PY) experiments/bench_workers.py

compare-perception: setup ## motion masks, label images, true tracks: from pixel error to anticipation error
	$(PY) experiments/compare_perception.py

reproduce-metaworld: setup ## the Meta-World table: REPRODUCE_ARGS="--suite main|one_view|baselines|ten|tracked|all"
	$(PY) experiments/reproduce.py $(REPRODUCE_ARGS)

reproduce-maniskill: ## the ManiSkill table: push_cube, pick_cube (adds ManiSkill to .venv first)
	@$(MAKE) --no-print-directory setup EXTRAS=maniskill
	$(PY) experiments/reproduce.py --suite maniskill --num 300 --out runs/maniskill --results results/maniskill $(REPRODUCE_ARGS)

sensitivity: setup ## how much each setting of the method matters: REPRODUCE_ARGS="--task door_open --factors form"
	$(PY) experiments/sensitivity.py $(REPRODUCE_ARGS)

reproduce: setup ## all of docs/results.md, a night and more, resumable; QUICK=1: a sample of it in half an hour
ifeq ($(QUICK),)
	$(PY) experiments/reproduce.py --suite all
	for cell in $(FIRST); do $(PY) experiments/report.py runs/metaworld/runs/$$cell/seed0 --out results/first/$$cell.html; done
	$(PY) experiments/sensitivity.py
	$(PY) experiments/sensitivity.py --task door_open --num 72 --out runs/sensitivity
	$(PY) experiments/sensitivity.py --task door_open --tracker lucas_kanade --factors min_motion
	$(MAKE) --no-print-directory reproduce-maniskill
	$(MAKE) --no-print-directory compare-perception bench-tracking bench-workers bench
else
	$(PY) experiments/reproduce.py --suite main --tasks drawer_open $(TINY)
	$(PY) experiments/reproduce.py --suite baselines --tasks drawer_open $(TINY)
	$(PY) experiments/sensitivity.py --factors form,num_keypoints $(TINY)
	$(PY) experiments/report.py runs/quick/runs/drawer_open-2-truth-relam-keypoints/seed0 --out runs/quick/results/report.html
endif

tables: setup ## rewrite the tables of README and docs from results/
	$(PY) -m relam_jax.report.readme

lock: setup ## resolve requirements.txt and requirements-gpu.txt anew (needs uv)
	.ci/lock

clean: ## remove runs, records and caches (not videos, not .venv)
	rm -rf runs data .cache .pytest_cache .ruff_cache .hypothesis
