"""One run from records (or a trained anticipation model) to trained policies, in a run folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from relam_jax.anticipation.fit_task import learn_anticipation
from relam_jax.anticipation.plan import Anticipation, load_anticipation
from relam_jax.diffusion.fit import NATS
from relam_jax.diffusion.store import ensure_video_model
from relam_jax.keypoints.records import find_dataset
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.training.config import TrainConfig, changed_fields, from_json, to_json
from relam_jax.training.demonstrations import demonstration_frames
from relam_jax.training.imitation import OF_PLACES, read_places
from relam_jax.training.loop import train
from relam_jax.training.provenance import append_provenance


def run_experiment(config: TrainConfig, resume: bool) -> dict[str, float]:
    """Train; returns the last evaluation's summary.

    Raises:
        ValueError: the run folder holds another run, or there is nothing to learn anticipation
        from.
        FileNotFoundError: there are no demonstrations to imitate.
    """
    run = config.run_folder
    saved = run / "config.json"
    if saved.exists():
        if not resume:
            raise ValueError(
                f"{run} holds a run already: add --resume to go on with it, or choose another --out"
            )
        changed = changed_fields(from_json(saved.read_text()), config)
        if changed:
            raise ValueError(
                f"{run} was started with another configuration ({'; '.join(changed)}): "
                f"resume with the same one, "
                "or choose another --out"
            )
    if config.reward in OF_PLACES:
        find_dataset(config.records_folder)
    anticipation = _anticipation(config)
    run.mkdir(parents=True, exist_ok=True)
    if config.reward in NATS:
        run_video_model(config, anticipation)
    write_atomic(saved, to_json(config).encode())
    append_provenance(run)
    result = train(config, anticipation, resume)
    print(
        f"{run}: success {result['success']:.0%} at any step, "
        f"{result['success_end']:.0%} at the end, "
        f"{result['stage']:.0%} of the subgoals met, {config.num_seeds} × "
        f"{config.eval_episodes} episodes"
    )
    return result


def run_video_model(config: TrainConfig, anticipation: Anticipation | None = None) -> None:
    """Fit the video model of the run's reward, unless there is one; that of places needs an
    `anticipation` model. Raises as `ensure_video_model` does."""
    if config.reward in OF_PLACES:
        assert anticipation is not None, "places are those of planned keypoints"
        read = partial(read_places, config, anticipation)
    else:
        folders, size = (config.records_folder, config.videos_folder), config.diffusion.frame_size
        read = partial(demonstration_frames, *folders, size)
    ensure_video_model(
        config.video_model_folder,
        read,
        config.diffusion,
        config.action_repeat,
        config.seed,
        config.reward,
    )


def _anticipation(config: TrainConfig) -> Anticipation:
    if config.anticipation:
        return load_anticipation(Path(config.anticipation))
    own = config.run_folder / "anticipation"
    if (own / "config.json").exists():
        return load_anticipation(own)
    data = config.records_folder
    if not data.exists():
        raise ValueError(
            f"no keypoint records at {data}: run `make preprocess "
            f"DATA=videos/{config.task}` first, "
            "or name a folder with --data or a model with --anticipation"
        )
    return learn_anticipation(data, own, config.selection, config.keyframes, config.fit)
