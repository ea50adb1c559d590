"""How fast learning and stepping are, beside what the machine can do at most.

    python experiments/bench.py

CPU-seconds of this process (user + system) divide everything, so that another load on the machine
matters little; compare rows of one run, not of two. Writes results/bench.json.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from relam_jax import cli
from relam_jax.agents import replay
from relam_jax.agents.sac import SACConfig, make_sac
from relam_jax.envs import make_env
from relam_jax.training.provenance import hardware


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    task: str = "drawer_open"
    """Task that is stepped."""
    out: Path = Path("results/bench.json")
    """Result file."""


def rate(work: Callable[[], object], count: int, repeats: int = 5) -> float:
    """Median over repeats of count / CPU-seconds of a call of `work`, after one that compiles."""
    work()
    rates = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        rates.append(count / (time.process_time() - began))
    return float(np.median(rates))


def gemm_flops() -> float:
    """Matrix products of the size of the networks' (256³), float32, FLOP a CPU-second."""
    a = jnp.ones((256, 256))
    product = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, y: 1e-3 * (y @ a), x))
    return rate(lambda: jax.block_until_ready(product(a)), 200) * 2 * 256**3


def update_flops(obs_dim: int, action_dim: int, config: SACConfig) -> float:
    """FLOP of the matrix products of one grad_step.

    Forward passes: actor on next_obs and on obs, two target critics, two critics twice. Backward:
    weights and inputs of actor and critics, and the critics' inputs alone for the actor's loss.
    """
    hidden = sum(a * b for a, b in zip(config.widths, config.widths[1:], strict=False))
    actor_in, critic_in = obs_dim * config.widths[0], (obs_dim + action_dim) * config.widths[0]
    actor = actor_in + hidden + 2 * action_dim * config.widths[-1]
    critic = critic_in + hidden + config.widths[-1]
    forward = 2 * actor + 6 * critic
    backward = (2 * actor - actor_in) + 2 * (2 * critic - critic_in) + 2 * critic
    return 2 * config.batch_size * (forward + backward)


def sac_updates(obs_dim: int, action_dim: int, config: SACConfig, count: int = 64) -> float:
    """Gradient steps a CPU-second, `count` a call, as the training loop does them."""
    agent = make_sac(config, obs_dim, action_dim)
    capacity, key = 20_000, jax.random.key(0)
    obs = jax.random.normal(key, (capacity, obs_dim))
    rows = replay.Transition(
        obs, jnp.zeros((capacity, action_dim)), obs[:, 0], jnp.ones(capacity), obs
    )
    buffer = replay.add(replay.init(capacity, obs_dim, action_dim), rows)

    @jax.jit
    def learn(learner, key):
        batches = replay.sample(buffer, key, (count, config.batch_size))
        return agent.update(learner, batches)[0]

    learner = agent.init(key)
    return rate(lambda: jax.block_until_ready(learn(learner, key)), count)


def env_steps(task: str, num_envs: int = 16, agent_steps: int = 40) -> float:
    """Simulator steps a CPU-second: stepping, success, projected keypoints."""
    env = make_env(task, num_envs, seed=0, num_threads=1)
    candidates = env.reset()
    indices = np.zeros((*candidates.visibility.shape[:3], 8), int)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (agent_steps, num_envs, 4)).astype(np.float32)
    states = np.zeros(num_envs, int)

    def episode() -> None:
        env.reset(init_states=states)
        env.follow(indices)
        for action in actions:
            env.step(action)

    count = num_envs * agent_steps * env.action_repeat
    result = rate(episode, count)
    env.close()
    return result


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    config = SACConfig()
    limit = gemm_flops()
    rows = {"matrix products, GFLOP": limit / 1e9}
    for obs_dim in (39, 168):
        updates = sac_updates(obs_dim, 4, config)
        bound = limit / update_flops(obs_dim, 4, config)
        rows[f"SAC grad_steps, obs {obs_dim}"] = updates
        rows[f"  % of the matrix products' limit ({bound:.0f})"] = 100 * updates / bound
    rows[f"env_steps, {args.task}"] = env_steps(args.task)
    print(f"a CPU-second of one core of {hardware()['cpu']}:")
    for name, value in rows.items():
        print(f"  {name:<45}{value:>10,.1f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"date": time.strftime("%Y-%m-%d"), "hardware": hardware(), "rows": rows}
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
