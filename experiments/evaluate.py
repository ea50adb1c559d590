"""Evaluate the newest checkpoint of a run: success with its interval.

Episodes are as long as the benchmark's own (500 env_steps in Meta-World); success within the
shorter episodes of training stands beside it.

    python experiments/evaluate.py --run runs/x

Writes runs/x/evaluation.json, and of each seed's first episode and first failure a video and a
picture a stage beside it: evaluation.seed0.mp4, evaluation.seed0_failed7.jpg …
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from relam_jax import cli


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    run: Path
    """Run folder of experiments/train.py."""
    episodes: int = 30
    """Episodes a seed, on initial states never trained on."""
    video: bool = True
    """Make videos of the first episode and the first failure of each of the first three seeds."""
    out: Path | None = None
    """Result file (default: evaluation.json in the run folder); videos go beside it."""


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    from relam_jax.report.evaluation import evaluate_run

    result = evaluate_run(args.run, args.episodes, args.video, args.out)
    any_step, in_time, end = (result[f"success_{x}"] for x in ("any", "in_time", "end"))
    print(
        f"{args.run} after {result['env_steps']} env_steps, {result['num_seeds']} seeds × "
        f"{result['episodes']} episodes: success {any_step['mean']:.0%} within "
        f"{result['episode_length']} env_steps (95 % CI {any_step['low']:.0%} to "
        f"{any_step['high']:.0%}), {in_time['mean']:.0%} within "
        f"{result['training_episode_length']} as in training, {end['mean']:.0%} at the end, "
        f"{result['stages_met']['mean']:.0%} of the subgoals met; written to "
        f"{args.out or args.run / 'evaluation.json'}"
    )


if __name__ == "__main__":
    cli.run(main)
