"""Demonstrations' videos → the video model of `--reward diffusion` and `viper`, for runs to share.

    python experiments/fit_video_model.py --task drawer_open --diffusion.model runs/video

Takes the arguments of experiments/train.py, whose runs share the model by `--diffusion.model`.
"""

from __future__ import annotations

import sys

from train import parse

from relam_jax import cli


def main() -> None:
    """Command line."""
    config, _ = parse([*sys.argv[1:], "--reward", "diffusion"])
    config.check()
    from relam_jax.training.experiment import run_video_model

    run_video_model(config)


if __name__ == "__main__":
    cli.run(main)
