"""Shared by all tests: one thread, no GPU, small synthetic tasks."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
