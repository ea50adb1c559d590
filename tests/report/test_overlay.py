"""What a policy does, as pictures."""

import numpy as np
import pytest

from relam_jax.report.overlay import PICTURE_SIDE, Episode, stage_pictures


@pytest.mark.parametrize(
    ("stage", "shown"), [([0, 0, 1, 1, 3, 3], [0, 2, 4, 5]), ([0, 0, 0], [0, 2]), ([0, 1], [0, 1])]
)
def test_a_picture_a_stage_and_the_end(stage, shown):
    frames, shape = len(stage), (len(stage), 2, 1, 4)
    shades = 20 * np.arange(frames, dtype=np.uint8)
    other_view = np.zeros((64, 64, 3), np.uint8)
    episode = Episode(
        images=[[np.full((64, 64, 3), s, np.uint8), other_view] for s in shades],
        keypoints=np.full((*shape, 2), 0.5),
        visibility=np.zeros(shape, bool),
        subgoals=np.full((*shape, 2), 0.5),
        stage=np.array(stage),
        num_stages=3,
        reward=np.zeros(frames),
        success=np.zeros(frames, bool),
    )
    pictures = stage_pictures(episode)
    assert pictures.shape == (PICTURE_SIDE, len(shown) * (PICTURE_SIDE + 4) - 4, 3)
    assert pictures[9, 9 :: PICTURE_SIDE + 4, 0].tolist() == shades[shown].tolist()
