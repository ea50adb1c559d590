"""The default install is lean: nothing on the training path needs torch or TensorFlow."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["relam_jax.training.experiment", "relam_jax.report.build", "preprocess_torch.cli"]
)
def test_torch_is_not_needed_and_tensorflow_not_imported(module):
    # torch is hidden, as libraries of ours import it where they find it
    code = (
        "import sys\n"
        "from importlib.machinery import PathFinder as P\n"
        "find = P.find_spec\n"
        "P.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        f"import {module}\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


def test_keypoints_and_geometry_do_not_import_jax():
    code = (
        "import sys, relam_jax.keypoints.selection, relam_jax.keypoints.records, "
        "relam_jax.geometry; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
