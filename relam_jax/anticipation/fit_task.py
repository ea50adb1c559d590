"""The whole of learning to anticipate: a folder of records in, a saved model out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from relam_jax.anticipation.dataset import build_examples
from relam_jax.anticipation.model import ModelConfig
from relam_jax.anticipation.plan import Anticipation, as_tuples, save_anticipation
from relam_jax.anticipation.train import NAME, FitConfig, fit, split_clips
from relam_jax.fitting import Unfinished
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.records import read_records
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.logs import RunLog


def learn_anticipation(
    data: Path,
    out: Path,
    selection: SelectionConfig,
    keyframes: KeyframeConfig,
    config: FitConfig,
) -> Anticipation:
    """Train on the records in `data`, write model, log (CSV, TensorBoard), keyframes and time spent
    to `out`. Killed and called again it goes on where it was.

    Raises:
        ValueError, FileNotFoundError: there are no usable records at `data`.
    """
    records = read_records(data)
    examples = build_examples(records, selection, keyframes)
    views, entities = examples.view_names, examples.entity_names
    stages = int(examples.num_stages.max())
    model = ModelConfig(
        num_views=len(views),
        num_entities=len(entities),
        max_stages=stages,
        shows_goal=any(name in selection.goal_entities for name in entities),
    )
    kept = Unfinished(out, (model, config), examples)
    log = RunLog(out, {"fit": kept.steps(NAME)})
    result = fit(examples, model, config, partial(log.write, "fit"), kept)
    log.close()
    anticipation = Anticipation(
        model=model,
        selection=selection,
        keyframes=keyframes,
        task=records[0].task,
        view_names=views,
        entity_names=entities,
        num_stages=stages,
        test_error=tuple(float(e) for e in result.error.free_running),
        group_error=as_tuples(np.nan_to_num(result.error.by_group).round(6).tolist()),
        params=result.params,
    )
    kept.write_timing()
    np.savez(out / "keyframes.npz", frames=examples.frames, counts_alone=examples.counts_alone)
    save_anticipation(out, anticipation)
    kept.remove()
    error = ", ".join(f"{e:.4f}" for e in anticipation.test_error)
    kind = split_clips(len(records), config).kind
    print(
        f"anticipation: {len(records)} clips, {anticipation.num_stages} subgoals, error on {kind} "
        f"clips {error} image sides a subgoal, {kept.seconds:.0f} s"
    )
    if kind == "training":
        print("with fewer than 5 clips none is held out: how exact new plans are is not known")
    return anticipation
