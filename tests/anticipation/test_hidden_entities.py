"""Which views of an entity a plan keeps that is going to be hidden in some of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.anticipation import plan
from relam_jax.anticipation.model import ModelConfig
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import SelectionConfig

VIEWS, ENTITIES, CANDIDATES = 2, 2, 6


@pytest.mark.parametrize(
    "surely_seen,error,kept",
    [
        ([[1, 1], [1, 1]], [[0.01, 0.01], [0.01, 0.01]], [[1, 1], [1, 1]]),
        ([[1, 0], [1, 1]], [[0.01, 0.01], [0.01, 0.01]], [[1, 1], [1, 1]]),  # behind a finger
        ([[1, 0], [1, 1]], [[0.01, 0.00], [0.01, 0.01]], [[1, 0], [1, 1]]),  # never followed there
        ([[1, 0], [1, 0]], [[0.01, 0.00], [0.01, 0.01]], [[1, 1], [1, 1]]),  # else nowhere
    ],
)
def test_a_view_is_left_out_only_where_an_entity_was_never_followed(
    monkeypatch, surely_seen, error, kept
):
    points = np.random.default_rng(0).uniform(0.2, 0.8, (1, VIEWS, ENTITIES, CANDIDATES, 2))
    seen = np.ones(points.shape[:-1], bool)

    def foreseen(model, params, start, visibility, stages):
        """All move by 0.1; in sight as said; one stage."""
        in_sight = jnp.asarray(surely_seen)[None, :, :, None] * 10.0 * visibility
        return start[:, None] + 0.1, in_sight, jnp.ones((1, 1))

    monkeypatch.setattr(plan, "roll_out", foreseen)
    anticipation = plan.Anticipation(
        model=ModelConfig(num_views=VIEWS, num_entities=ENTITIES, max_stages=1),
        selection=SelectionConfig(),
        keyframes=KeyframeConfig(),
        task="door_open",
        view_names=("cam0", "cam1"),
        entity_names=("gripper", "object"),
        num_stages=1,
        test_error=(0.01,),
        group_error=plan.as_tuples([error]),
        params=None,
    )
    valid = np.asarray(plan.make_planner(anticipation)(points.astype(np.float32), seen).valid[0])
    assert valid.any(-1).tolist() == (np.array(kept) > 0).tolist()
