"""Where the real code of CoTracker3 and EVF-SAM is, for the contract tests; `make test-upstream`.

Without it those tests skip and say why. Weights are random: what is tested is that shapes,
coordinates, order and settings mean to upstream what they mean here.
"""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

import pytest


def need_torch() -> ModuleType:
    return pytest.importorskip("torch", reason="torch is not installed (make setup EXTRAS=torch)")


def need(package: str, variable: str, repository: str) -> None:
    """Skip the module unless `package` is importable or `variable` names a checkout."""
    root = package.split(".")[0]  # find_spec raises where the parent of a module is missing
    if not os.environ.get(variable) and importlib.util.find_spec(root) is None:
        pytest.skip(
            f"neither the package {package} is installed nor {variable} names a checkout of "
            f"github.com/{repository}",
            allow_module_level=True,
        )


def define_missing_ops(torch: ModuleType) -> None:
    """Let torchvision be imported beside the CPU build of torch, whose operators it cannot load;
    nothing that is tested uses them."""
    dets = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", dets)
