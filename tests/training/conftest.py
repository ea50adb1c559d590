"""A real task with an untrained anticipation model: enough for the mechanics of training. And some
of its committed demonstrations."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from relam_jax.anticipation.model import AnticipationModel, ModelConfig
from relam_jax.anticipation.plan import Anticipation, save_anticipation
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import SelectionConfig


@pytest.fixture(scope="session")
def anticipation() -> Anticipation:
    return untrained(("cam0", "cam1"))


def untrained(
    view_names: tuple[str, ...],
    entity_names: tuple[str, ...] = ("gripper", "object"),
    task: str = "drawer_open",
) -> Anticipation:
    views, entities = len(view_names), len(entity_names)
    model = ModelConfig(width=16, num_heads=2, num_layers=1, num_entities=entities)
    shape = (1, 2, views, entities, 4)
    params = jax.jit(AnticipationModel(model).init)(
        jax.random.key(0),
        jnp.zeros((*shape, 2)),
        jnp.ones(shape, bool),
        jnp.zeros((1, 6 * entities * views)),
    )
    # untrained, but with subgoals away from the start
    noise = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    leaves, structure = jax.tree.flatten(params)
    leaves = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, noise, strict=True)]
    return Anticipation(
        model=model,
        selection=SelectionConfig(num_keypoints=4),
        keyframes=KeyframeConfig(),
        task=task,
        view_names=view_names,
        entity_names=entity_names,
        num_stages=2,
        test_error=(0.01, 0.01),
        group_error=(((0.01,) * entities,) * views,) * 2,
        params=jax.tree.unflatten(structure, leaves),
    )


@pytest.fixture(scope="session")
def anticipation_folder(anticipation, tmp_path_factory):
    path = tmp_path_factory.mktemp("anticipation")
    save_anticipation(path, anticipation)
    return path


@pytest.fixture(scope="session")
def records_folder(tmp_path_factory):
    """Five of the committed clips of drawer_open, tracked."""
    root = Path(__file__).parents[2]
    path = tmp_path_factory.mktemp("demonstrations")
    videos, out = path / "drawer_open", path / "records"
    videos.mkdir()
    for file in (root / "videos" / "drawer_open").iterdir():
        if file.name[:3] < "005" or file.name == "masks.json":
            (videos / file.name).symlink_to(file)
    command = [sys.executable, "-m", "preprocess_torch", "--data", videos, "--out", out]
    subprocess.run([*map(str, command), "--points", "32"], check=True, cwd=root)
    return out
