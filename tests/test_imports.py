"""The default install is lean: nothing on the training path needs torch or TensorFlow."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["relam_jax.training.experiment", "relam_jax.report.build", "preprocess_torch.cli"]
)
def test_neither_torch_nor_tensorflow_is_needed(module):
    # hidden, as libraries of ours import torch where they find it
    code = (
        "from importlib.machinery import PathFinder as P\n"
        "find = P.find_spec\n"
        "hidden = ('torch', 'tensorflow')\n"
        "P.find_spec = lambda name, *rest: None if name in hidden else find(name, *rest)\n"
        f"import {module}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_keypoints_and_geometry_do_not_import_jax():
    code = (
        "import sys, relam_jax.keypoints.selection, relam_jax.keypoints.records, "
        "relam_jax.geometry; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
