"""Train policies on anticipated keypoints: records → anticipation model → SAC in simulation.

python experiments/train.py --task drawer_open --num_envs 32
"""

from __future__ import annotations

import sys
from dataclasses import replace

import tyro

from relam_jax import cli
from relam_jax.presets import preset
from relam_jax.training.config import TrainConfig


def parse(argv: list[str]) -> tuple[TrainConfig, bool]:
    """The config (the task's preset, overridden by flags) and whether to resume."""
    resume = "--resume" in argv
    argv = [a for a in argv if a != "--resume"]
    named = [argv[i + 1] for i, a in enumerate(argv[:-1]) if a == "--task"]
    named += [a.split("=", 1)[1] for a in argv if a.startswith("--task=")]
    default = preset(named[-1]) if named else TrainConfig()
    config = tyro.cli(TrainConfig, args=argv, default=default, description=__doc__)
    return replace(config, task=default.task), resume


def main() -> None:
    """Command line."""
    config, resume = parse(sys.argv[1:])
    config.check()
    from relam_jax.training.experiment import run_experiment

    run_experiment(config, resume)


if __name__ == "__main__":
    cli.run(main)
