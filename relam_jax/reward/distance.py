"""d = ‖p − g‖ of method §4: visibility-weighted, one number an entity and view."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def keypoint_distance(
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    subgoal: Float[Array, "V E K 2"],
    last: Float[Array, "V E"],
) -> Float[Array, "V E"]:
    """Mean over the visible points of an entity and view of ‖p − g‖, image sides.

    Where all of them are hidden, or none is finite, the `last` distance stands.
    """
    seen = visibility & jnp.isfinite(keypoints).all(-1) & jnp.isfinite(subgoal).all(-1)
    gap = jnp.where(seen[..., None], keypoints - subgoal, 0.0)
    # sqrt of a safe number: the gradient of ‖0‖ is not needed, but its NaN would spread
    length = jnp.sqrt(jnp.maximum((gap**2).sum(-1), 1e-20))
    count = seen.sum(-1)
    mean = (length * seen).sum(-1) / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, last)
