"""env_steps a CPU-second of ManiSkill's CPU simulation: as it ships, and as this project steps it.

    python experiments/bench_maniskill.py --tasks PickCube-v1 PushCube-v1

Needs `make setup EXTRAS=maniskill`. Prints a JSON line a task. Both take the same expert's actions;
the original with state observations and normalised dense reward, its defaults.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tyro

from relam_jax import cli


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    tasks: tuple[str, ...] = ("PickCube-v1", "PushCube-v1", "StackCube-v1")
    """registered ids."""
    num_envs: int = 16
    """simulations in the process."""
    env_steps: int = 25
    """of each simulation and turn."""


def bench(env_id: str, args: Args) -> dict[str, float | str]:
    """Both rates of a task, medians of three turns."""
    from relam_jax.envs.maniskill.experts import expert_actions
    from relam_jax.envs.maniskill.sapien import CONTROL_MODE, gym
    from relam_jax.envs.maniskill.simulations import Simulations, describe

    stock = gym.make(
        env_id,
        sim_backend="cpu",
        render_backend="none",
        control_mode=CONTROL_MODE,
        obs_mode="state",
    ).unwrapped
    description, ours = describe(env_id), Simulations(env_id, args.num_envs, False)
    rows, repeats = list(range(args.num_envs)), np.ones(args.num_envs, int)
    rates: dict[str, list[float]] = {"original": [], "relam_jax": []}
    for turn in range(3):
        frame, actions = ours.reset(rows, [turn] * len(rows)), []
        spent = 0.0
        for _ in range(args.env_steps):
            actions.append(expert_actions(description, frame.poses, frame.proprio))
            began = time.process_time()
            frame = ours.step(rows, actions[-1], repeats)
            spent += time.process_time() - began
        rates["relam_jax"].append(args.env_steps * args.num_envs / spent)
        stock.reset(seed=turn)
        began = time.process_time()
        for action in actions:
            stock.step(action[0])
        rates["original"].append(args.env_steps / (time.process_time() - began))
    medians = {name: round(float(np.median(r)), 1) for name, r in rates.items()}
    return {"task": env_id, **medians}


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    for env_id in args.tasks:
        print(json.dumps(bench(env_id, args)), flush=True)


if __name__ == "__main__":
    cli.run(main)
