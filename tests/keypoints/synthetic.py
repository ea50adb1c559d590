"""Episodes of two entities that move along known bent paths: ground truth for selection, keyframes,
anticipation."""

import numpy as np

from relam_jax.keypoints.schema import KeypointRecord

CORNERS = np.array([[0.2, 0.2], [0.5, 0.2], [0.5, 0.6], [0.8, 0.7]])


def record(seed: int, frames: int = 40, slots: int = 12, noise: float = 0.0) -> KeypointRecord:
    """The gripper passes three straight legs; the object moves along on the last one only."""
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-0.05, 0.05, 2)
    u = 3 * np.linspace(0, 1, frames) ** rng.uniform(0.8, 1.25)
    leg = np.minimum(u.astype(int), 2)
    path = CORNERS[leg] + (u - leg)[:, None] * (CORNERS[leg + 1] - CORNERS[leg]) + shift
    held = np.where((u > 2)[:, None], path, CORNERS[2] + shift)
    tracks = []
    for _ in range(2):  # views
        offsets = rng.uniform(-0.04, 0.04, (2, 1, slots, 2))
        tracks.append(
            np.concatenate([path[:, None] + offsets[0], held[:, None] + offsets[1]], axis=1)
        )
    points = np.stack(tracks) + noise * rng.normal(size=(2, frames, 2 * slots, 2))
    seen = np.ones(points.shape[:-1], bool)
    return KeypointRecord(
        video_id=f"synthetic/{seed:03d}",
        episode_id=f"{seed:03d}",
        task="synthetic",
        fps=80.0,
        image_size=(256, 256),
        view_names=("cam0", "cam1"),
        entity_names=("gripper", "object"),
        tracks=points.astype(np.float32),
        visibility=seen,
        confidence=seen.astype(np.float32),
        entity_id=np.repeat(np.arange(2, dtype=np.int32), slots),
        query_frame=0,
        first_frames=(b"", b""),
        source_sha256=("", ""),
        provenance="{}",
    )
