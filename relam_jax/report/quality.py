"""How good the keypoints of demonstrations are: how many, how much of the time in sight, whether
other demonstrations have theirs in the same places, and how far off the truth where that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from relam_jax.envs import truth
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import EpisodeTracks, SelectionConfig, group_by_entity, select


class Quality(NamedTuple):
    """Of the keypoints of one entity in some demonstrations; None where there are none."""

    an_entity: float
    """keypoints a view and demonstration."""
    in_sight: float | None
    """share of the frames in which they are seen."""
    apart: float | None
    """distance to the nearest keypoint of another demonstration, each placed in the box of its
    entity's candidates in the first frame: mean, diagonals of that box. 0: the same places."""
    error: float | None
    """median distance to the simulator's true tracks where both see the point, image sides; None
    where those are not known."""


def keypoint_quality(
    records: Sequence[KeypointRecord], selection: SelectionConfig, videos: Path | None = None
) -> dict[str, Quality]:
    """By entity; true tracks are looked for beside the `videos` that the records are of."""
    chosen = [select(record, selection) for record in records]
    errors = [off_truth(r, c, videos) for r, c in zip(records, chosen, strict=True)]
    found = {}
    for e, name in enumerate(records[0].entity_names):
        seen = [c.visibility[:, :, e] for c in chosen]  # (T, V, K)
        off = np.concatenate([x[:, :, e][s] for x, s in zip(errors, seen, strict=True)])
        off = off[np.isfinite(off)]
        in_sight = [s[:, s[0]].mean() for s in seen if s[0].any()]
        found[name] = Quality(
            float(np.mean([s[0].sum(-1).mean() for s in seen])),
            float(np.mean(in_sight)) if in_sight else None,
            apart([_places(r, c, e) for r, c in zip(records, chosen, strict=True)]),
            float(np.median(off)) if len(off) else None,
        )
    return found


def overall(found: dict[str, Quality]) -> dict[str, float]:
    """Means over entities, by name; what is not known of all of them is left out."""
    columns = zip(Quality._fields, zip(*found.values(), strict=True), strict=True)
    return {name: float(np.mean(values)) for name, values in columns if None not in values}


def shown(quality: Mapping[str, float | None]) -> list[str]:
    """Its fields as tables show them: number, %, %, thousandths of an image side; – if unknown."""
    scales = {"an_entity": (1, 1), "in_sight": (100, 0), "apart": (100, 0), "error": (1000, 1)}
    values = [(quality.get(name), *scale) for name, scale in scales.items()]
    return ["–" if v is None else f"{scale * v:.{digits}f}" for v, scale, digits in values]


def off_truth(
    record: KeypointRecord, chosen: EpisodeTracks, videos: Path | None
) -> Float[np.ndarray, "T V E K"]:
    """Distance of keypoints to the simulator's tracks of the same pixels, image sides; NaN where
    those are not known, or the simulator calls the point hidden."""
    out = np.full(chosen.visibility.shape, np.nan)
    for v, view in enumerate(record.view_names):
        file = videos / f"{record.episode_id}.{view}.truth.npz" if videos else None
        if file is None or not file.is_file():
            continue
        points = chosen.points[:, v]
        true, visible = truth.load(file).tracks(points[0].reshape(-1, 2))
        if len(true) == len(points):
            distance = np.linalg.norm(points - true.reshape(points.shape), axis=-1)
            out[:, v] = np.where(visible.reshape(distance.shape), distance, np.nan)
    return out


def _places(
    record: KeypointRecord, chosen: EpisodeTracks, entity: int
) -> list[Float[np.ndarray, "_ 2"]]:
    """Where an entity's keypoints are in each view's first frame: from the middle of the box of its
    candidates, in diagonals."""
    candidates, places = group_by_entity(record), []
    for v in range(record.num_views):
        box = candidates.points[0, v, entity][candidates.visibility[0, v, entity]]
        own = chosen.points[0, v, entity][chosen.visibility[0, v, entity]]
        if len(box):
            low, high = box.min(0), box.max(0)
            own = (own - (low + high) / 2) / max(float(np.linalg.norm(high - low)), 1e-6)
        places.append(own)
    return places


def apart(places: Sequence[Sequence[Float[np.ndarray, "_ 2"]]]) -> float | None:
    """Mean distance from a point to the nearest one of another demonstration in the same view, of
    places by demonstration and view; None where no two demonstrations have any."""
    nearest = [
        np.linalg.norm(a[:, None] - b, axis=-1).min(1)
        for one, other in permutations(places, 2)
        for a, b in zip(one, other, strict=True)
        if len(a) and len(b)
    ]
    return float(np.concatenate(nearest).mean()) if nearest else None
