"""Soft actor-critic (Haarnoja et al. 2018), several seeds at once.

`make_sac(config, …)` closes over everything static; what may differ between seeds or be swept is a
leaf of `Hyper`. All functions work on one seed and are vmapped over a leading axis by the training
loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from relam_jax.agents import replay
from relam_jax.agents.networks import Actor, Critic, sample_squashed

Params = Any


@dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic."""

    widths: tuple[int, ...] = (256, 256)
    """Hidden layers of actor and critics."""
    layer_norm: bool = True
    """LayerNorm after each hidden layer of the critics."""
    batch_size: int = 256
    """Transitions a grad_step."""
    learning_rate: float = 3e-4
    """Adam, for actor, critics and temperature."""
    gamma: float = 0.9
    """Discount an agent step. The reward is dense: a short horizon makes the next centimetres stand
    out from the errors of the critics (0.97: door_open stops half-way)."""
    n_step: int = 3
    """Agent steps whose rewards are summed before the critics are asked: progress is credited to
    what led to it sooner. One step: door_open takes two to four times the env_steps."""
    tau: float = 0.005
    """Share of the new parameters in the targets, a grad_step."""
    average_rate: float = 0.002
    """Share of the new actor in the averaged one, a grad_step. Success is evaluated with the
    averaged one: single actors drop from 100 % to 80 % now and then."""
    target_entropy: float = -1.0
    """Entropy that the temperature holds, nats an action dimension."""
    init_alpha: float = 0.01
    """First temperature, small beside the reward of one stage, 1 / M an agent step: it falls by at
    most the learning rate an update, which takes long from 0.1."""


class Hyper(NamedTuple):
    """Hyper-parameters that may differ between seeds."""

    learning_rate: Float[Array, ""]
    gamma: Float[Array, ""]
    tau: Float[Array, ""]
    target_entropy: Float[Array, ""]


class Learner(NamedTuple):
    """All that learning changes, and the hyper-parameters it goes by."""

    actor: Params
    average_actor: Params
    """a running mean of the actor's parameters, for evaluation."""
    critics: tuple[Params, Params]
    target_critics: tuple[Params, Params]
    log_alpha: dict[str, Array]
    actor_opt: optax.OptState
    critics_opt: optax.OptState
    alpha_opt: optax.OptState
    hyper: Hyper
    key: PRNGKeyArray


class SAC(NamedTuple):
    """The agent's pure functions, for one seed."""

    init: Callable[[PRNGKeyArray], Learner]
    act: Callable[[Params, Array, PRNGKeyArray], Array]
    """(actor, obs (…, D), key) → a sampled action."""
    mode: Callable[[Params, Array], Array]
    """(actor, obs (…, D)) → the deterministic action."""
    update: Callable[[Learner, replay.Transition], tuple[Learner, dict[str, Array]]]
    """one scan of grad_steps over batches (U, batch_size, …); returns their mean metrics."""


def make_sac(config: SACConfig, obs_dim: int, action_dim: int) -> SAC:
    """Close over everything static."""
    actor, critic = Actor(action_dim, config.widths), Critic(config.widths, config.layer_norm)
    policy: Callable[..., Any] = actor.apply
    value: Callable[..., Any] = critic.apply
    adam = optax.scale_by_adam()

    def init(key: PRNGKeyArray) -> Learner:
        key, actor_key, key_1, key_2 = jax.random.split(key, 4)
        obs, action = jnp.zeros((1, obs_dim)), jnp.zeros((1, action_dim))
        actor_params = actor.init(actor_key, obs)
        critics = (critic.init(key_1, obs, action), critic.init(key_2, obs, action))
        log_alpha = {"log_alpha": jnp.log(jnp.float32(config.init_alpha))}
        hyper = Hyper(
            *(
                jnp.float32(x)
                for x in (
                    config.learning_rate,
                    config.gamma,
                    config.tau,
                    config.target_entropy * action_dim,
                )
            )
        )
        return Learner(
            actor_params,
            jax.tree.map(jnp.copy, actor_params),
            critics,
            jax.tree.map(jnp.copy, critics),
            log_alpha,
            adam.init(actor_params),
            adam.init(critics),
            adam.init(log_alpha),
            hyper,
            key,
        )

    def act(params: Params, obs: Array, key: PRNGKeyArray) -> Array:
        return sample_squashed(key, *policy(params, obs))[0]

    def mode(params: Params, obs: Array) -> Array:
        return jnp.tanh(policy(params, obs)[0])

    def descend(params: Params, grads: Params, opt: optax.OptState, rate: Array) -> tuple:
        direction, opt = adam.update(grads, opt)
        return jax.tree.map(lambda p, d: p - rate * d, params, direction), opt

    def grad_step(
        learner: Learner, batch: replay.Transition, key: PRNGKeyArray
    ) -> tuple[Learner, dict[str, Array]]:
        next_key, actor_key = jax.random.split(key)
        alpha = jnp.exp(learner.log_alpha["log_alpha"])

        next_action, next_log_prob = sample_squashed(
            next_key, *policy(learner.actor, batch.next_obs)
        )
        next_q = jnp.minimum(
            *(value(c, batch.next_obs, next_action) for c in learner.target_critics)
        )
        target = batch.reward + learner.hyper.gamma * batch.discount * (
            next_q - alpha * next_log_prob
        )

        def critic_loss(critics: tuple[Params, Params]) -> tuple[Array, Array]:
            q_1, q_2 = (value(c, batch.obs, batch.action) for c in critics)
            return ((q_1 - target) ** 2 + (q_2 - target) ** 2).mean(), q_1.mean()

        (q_loss, q_mean), grads = jax.value_and_grad(critic_loss, has_aux=True)(learner.critics)
        critics, critics_opt = descend(
            learner.critics, grads, learner.critics_opt, learner.hyper.learning_rate
        )

        def actor_loss(params: Params) -> tuple[Array, Array]:
            action, log_prob = sample_squashed(actor_key, *policy(params, batch.obs))
            q = jnp.minimum(*(value(c, batch.obs, action) for c in critics))
            return (alpha * log_prob - q).mean(), log_prob.mean()

        (pi_loss, log_prob), grads = jax.value_and_grad(actor_loss, has_aux=True)(learner.actor)
        actor_params, actor_opt = descend(
            learner.actor, grads, learner.actor_opt, learner.hyper.learning_rate
        )

        # d/d log_alpha of −alpha (log_prob + target_entropy)
        grads = {"log_alpha": -alpha * (log_prob + learner.hyper.target_entropy)}
        log_alpha, alpha_opt = descend(
            learner.log_alpha, grads, learner.alpha_opt, learner.hyper.learning_rate
        )

        def towards(old: Params, new: Params, share: Any) -> Params:
            return jax.tree.map(lambda a, b: a + share * (b - a), old, new)

        targets = towards(learner.target_critics, critics, learner.hyper.tau)
        learner = learner._replace(
            actor=actor_params,
            average_actor=towards(learner.average_actor, actor_params, config.average_rate),
            critics=critics,
            target_critics=targets,
            log_alpha=log_alpha,
            actor_opt=actor_opt,
            critics_opt=critics_opt,
            alpha_opt=alpha_opt,
        )
        info = {
            "critic_loss": q_loss,
            "actor_loss": pi_loss,
            "q": q_mean,
            "entropy": -log_prob,
            "alpha": alpha,
        }
        return learner, info

    def update(learner: Learner, batches: replay.Transition) -> tuple[Learner, dict[str, Array]]:
        num_updates = batches.reward.shape[0]
        key, scan_key = jax.random.split(learner.key)
        keys = jax.random.split(scan_key, num_updates)
        learner, info = jax.lax.scan(
            lambda carry, x: grad_step(carry, *x), learner._replace(key=key), (batches, keys)
        )
        return learner, jax.tree.map(jnp.mean, info)

    return SAC(init, act, mode, update)
