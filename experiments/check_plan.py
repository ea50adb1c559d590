"""Are the plans right in the simulator? Its scripted expert is led past them.

    python experiments/check_plan.py --run runs/demo

For each subgoal: how near the expert came to it (median over episodes, image sides), and in how
many episodes within θ_s. What the expert does not meet no policy will: then more or better
demonstrations are needed, not more training. Takes a minute and trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float

from relam_jax import cli


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    run: Path
    """Run folder of experiments/train.py; its anticipation model is enough, no policy is read."""
    episodes: int = 30
    """Initial states never trained on."""
    env_steps: int = 150
    """What the expert gets; it acts at each."""


def check(args: Args) -> tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N S V E"]]:
    """Of the moment when the expert was nearest to each subgoal: the worst distance of a view and
    entity as a share of its θ_s, and all distances, image sides."""
    from relam_jax.report.expert import lead_expert
    from relam_jax.report.run_folder import read_config, run_anticipation
    from relam_jax.training.task_env import make_goal_env

    config = read_config(args.run)
    anticipation = run_anticipation(args.run, config)
    config = replace(config, action_repeat=1, episode_length=args.env_steps)
    env = make_goal_env(config, anticipation, args.episodes, "eval")
    share, nearest, _ = lead_expert(env, args.env_steps)
    simulator = env.env
    simulator.close()
    names = [f"{v} {e}" for v in simulator.view_names for e in simulator.entity_names]
    print("subgoal  met by the expert  " + "  ".join(f"{n:>14}" for n in names))
    for s, cells in enumerate(np.median(nearest, axis=0).reshape(share.shape[1], -1)):
        print(
            f"{s + 1:7}  {np.mean(share[:, s] <= 1):17.0%}  "
            + "  ".join(f"{c:14.4f}" for c in cells)
        )
    return share, nearest


if __name__ == "__main__":
    cli.run(lambda: check(tyro.cli(Args, description=__doc__)) and None)
