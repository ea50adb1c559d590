"""Shared by all tests: one thread, no GPU, small synthetic tasks; runs of one test process
share what they compile."""

import atexit
import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
COMPILED = tempfile.TemporaryDirectory(prefix="relam-jax-compiled-")
atexit.register(COMPILED.cleanup)
os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling is most of what tests do
