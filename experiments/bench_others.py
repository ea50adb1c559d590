"""The same SAC work in another library, a process of its own in .venv-bench.

    .venv-bench/bin/python experiments/bench_others.py sbx

Work: obs 39, action 4, actor and two critics of 2×256 without LayerNorm, batch 256, learned
temperature, 20,000 random transitions, 64 grad_steps a call of the library's own training function.
Protocol: a JSON line {"versions"} once it is compiled, then for each line on stdin one JSON line
{"rate"}: grad_steps a CPU-second of one call. What goes wrong becomes a line {"reason"}.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np

OBS, ACTION, BATCH, CAPACITY, CALL = 39, 4, 256, 20_000, 64
PACKAGES = {
    "sbx": ("sbx-rl", "jax"),
    "stable-baselines3": ("stable-baselines3", "torch"),
    "brax": ("brax", "jax"),
}


def baselines(algorithm: Any, **arguments: Any) -> Iterator[None]:
    """One `train()` of stable-baselines3's interface a turn, its replay buffer filled."""
    import gymnasium
    from stable_baselines3.common.logger import Logger

    class Still(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)

    model = algorithm(
        "MlpPolicy",
        Still(),
        buffer_size=CAPACITY,
        batch_size=BATCH,
        learning_rate=3e-4,
        gamma=0.9,
        policy_kwargs={"net_arch": [256, 256]},
        seed=0,
        **arguments,
    )
    model.set_logger(Logger(None, []))
    rng, buffer = np.random.default_rng(0), model.replay_buffer
    buffer.observations[:] = rng.normal(size=buffer.observations.shape)
    buffer.next_observations[:] = buffer.observations
    buffer.rewards[:] = buffer.observations[..., 0]
    buffer.full = True
    while True:
        model.train(gradient_steps=CALL, batch_size=BATCH)
        yield


def sbx() -> Iterator[None]:
    """Stable-Baselines Jax."""
    from sbx import SAC

    return baselines(SAC)


def stable_baselines3() -> Iterator[None]:
    """Stable-Baselines3 on torch."""
    import torch
    from stable_baselines3 import SAC

    torch.set_num_threads(1)
    return baselines(SAC, device="cpu")


def brax() -> Iterator[None]:
    """brax's replay, losses and update functions, all grad_steps of a call in one jitted scan.

    Its own `train` needs jax < 0.10 and ran at about half of this rate.
    """
    import jax
    import optax
    from brax.training import gradients, replay_buffers
    from brax.training.agents.sac import losses, networks
    from brax.training.types import Transition

    net = networks.make_sac_networks(OBS, ACTION)
    alpha_step, critic_step, actor_step = (
        gradients.gradient_update_fn(loss, optax.adam(3e-4), None)
        for loss in losses.make_losses(net, 1.0, 0.9, ACTION)
    )
    key = jax.random.key(0)
    obs = jax.random.normal(key, (CAPACITY, OBS))
    zeros = jax.numpy.zeros(CAPACITY)
    extras = {"state_extras": {"truncation": zeros}, "policy_extras": {}}
    rows = Transition(obs, obs[:, :ACTION], obs[:, 0], zeros + 1, obs, extras)
    queue = replay_buffers.UniformSamplingQueue(
        CAPACITY, jax.tree.map(lambda x: x[0], rows), CALL * BATCH
    )
    buffer = jax.jit(queue.insert)(queue.init(key), rows)
    params = (zeros[0], net.policy_network.init(key), net.q_network.init(key))
    opts = tuple(optax.adam(3e-4).init(p) for p in params)

    def grad_step(carry: Any, batch: Any) -> tuple[Any, None]:
        (alpha, actor, critic), (alpha_opt, actor_opt, critic_opt), target, key = carry
        key, k1, k2, k3 = jax.random.split(key, 4)
        value = jax.numpy.exp(alpha)
        _, alpha, alpha_opt = alpha_step(alpha, actor, None, batch, k1, optimizer_state=alpha_opt)
        _, new, critic_opt = critic_step(
            critic, actor, None, target, value, batch, k2, optimizer_state=critic_opt
        )
        _, actor, actor_opt = actor_step(
            actor, None, critic, value, batch, k3, optimizer_state=actor_opt
        )
        target = jax.tree.map(lambda x, y: 0.995 * x + 0.005 * y, target, new)
        return ((alpha, actor, new), (alpha_opt, actor_opt, critic_opt), target, key), None

    @jax.jit
    def call(carry: Any, buffer: Any) -> tuple[Any, Any]:
        buffer, rows = queue.sample(buffer)
        batches = jax.tree.map(lambda x: x.reshape(CALL, BATCH, *x.shape[1:]), rows)
        return jax.lax.scan(grad_step, carry, batches)[0], buffer

    carry = (params, opts, params[2], key)
    while True:
        carry, buffer = jax.block_until_ready(call(carry, buffer))
        yield


def main(library: str) -> None:
    """Serve one library."""

    def say(**line: Any) -> None:
        print(json.dumps(line), file=stdout, flush=True)

    # the libraries may print: keep the answers apart
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        versions = {name: importlib.metadata.version(name) for name in PACKAGES[library]}
        calls = {"sbx": sbx, "stable-baselines3": stable_baselines3, "brax": brax}[library]()
        next(calls)
        next(calls)
        say(versions=versions)
        for _ in sys.stdin:
            began = time.process_time()
            next(calls)
            say(rate=CALL / (time.process_time() - began))
    except Exception as error:
        say(reason=" ".join(f"{type(error).__name__}: {error}".split())[:200])


if __name__ == "__main__":
    main(sys.argv[1])
