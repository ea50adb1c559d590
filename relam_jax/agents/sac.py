"""Soft actor-critic (Haarnoja et al. 2018), several seeds at once.

`make_sac(config, …)` closes over everything static; what may differ between seeds or be swept is a
leaf of `Hyper`. All functions work on one seed and are vmapped over a leading axis by the training
loop.

With frames the observation is a `Sight`, and everything else sees its vector and the features of an
encoder as one vector. As in DrQ-v2 (Yarats et al. 2021) images are shifted at random where they are
learnt from, the encoder learns from the critics' loss alone and has no target; unlike there, the
agent stays the soft one and the trunk is the encoder's, so that actor and critics share it.
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
from relam_jax.agents.frames import random_shift
from relam_jax.agents.networks import Actor, Critic, Encoder, sample_squashed

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
    learning_rate: float = 1e-3
    """Adam, for actor, critics and temperature. With 3e-4 push and lever_pull stay below
    90 %, after 200,000 env_steps too."""
    gamma: float = 0.9
    """Discount an agent step. The reward is dense: a short horizon makes the next centimetres stand
    out from the errors of the critics (0.97: door_open stops half-way)."""
    n_step: int = 3
    """Agent steps whose rewards are summed before the critics are asked: progress is credited to
    what led to it sooner. One step: door_open takes two to four times the env_steps."""
    tau: float = 0.01
    """Share of the new parameters in the targets, a grad_step: targets that keep up with the
    learning rate."""
    average_rate: float = 0.002
    """Share of the new actor in the averaged one, a grad_step. Success is evaluated with the
    averaged one: single actors drop from 100 % to 80 % now and then."""
    target_entropy: float = -1.0
    """Entropy that the temperature holds, nats an action dimension."""
    smoothness: float = 0.0
    """Weight in the actor's loss of the squared difference of its mean actions in obs and next_obs
    (CAPS, Mysore et al. 2021): without, a policy may swing about a goal that wants stillness."""
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
    """with frames {"encoder", "policy"}: all that acting needs."""
    average_actor: Params
    """a running mean of the actor's parameters, for evaluation."""
    critics: tuple[Params, Params]
    target_critics: tuple[Params, Params]
    log_alpha: dict[str, Array]
    actor_opt: optax.OptState
    critics_opt: optax.OptState
    """with frames of critics and encoder."""
    alpha_opt: optax.OptState
    hyper: Hyper
    key: PRNGKeyArray


class SAC(NamedTuple):
    """The agent's pure functions, for one seed."""

    init: Callable[[PRNGKeyArray], Learner]
    act: Callable[[Params, Any, PRNGKeyArray], Array]
    """(actor, obs (…, D), key) → a sampled action."""
    mode: Callable[[Params, Any], Array]
    """(actor, obs (…, D)) → the deterministic action."""
    update: Callable[..., tuple[Learner, dict[str, Array]]]
    """(learner, batches (U, batch_size, …)): one scan of grad_steps; returns their mean metrics.
    With frames the batches number those of a third argument, (R, H, W, C)."""


def make_sac(
    config: SACConfig,
    obs_dim: int,
    action_dim: int,
    frame_shape: tuple[int, int, int] | None = None,
) -> SAC:
    """Close over everything static. `frame_shape`: (H, W, C) of the observation's frames, if it has
    any."""
    actor, critic = Actor(action_dim, config.widths), Critic(config.widths, config.layer_norm)
    policy: Callable[..., Any] = actor.apply
    value: Callable[..., Any] = critic.apply
    adam, encoder = optax.scale_by_adam(), Encoder()
    encoded: Callable[..., Any] = encoder.apply
    seen_dim = obs_dim if frame_shape is None else obs_dim + encoder.features

    def split(actor: Params) -> tuple[Params, tuple[Params, ...]]:
        """Policy, and the encoder in a tuple, which is empty without frames."""
        return (actor, ()) if frame_shape is None else (actor["policy"], (actor["encoder"],))

    def whole(policy: Params, eye: tuple[Params, ...]) -> Params:
        return {"encoder": eye[0], "policy": policy} if eye else policy

    def see(eye: tuple[Params, ...], obs: Any) -> Array:
        """What actor and critics get to see of an observation: (…, seen_dim)."""
        return jnp.concatenate([obs.vector, encoded(*eye, obs.frames)], -1) if eye else obs

    def init(key: PRNGKeyArray) -> Learner:
        eye = ()
        if frame_shape is not None:
            blank = jnp.zeros((1, *frame_shape), jnp.uint8)
            eye = (encoder.init(jax.random.fold_in(key, 1), blank),)
        key, actor_key, key_1, key_2 = jax.random.split(key, 4)
        obs, action = jnp.zeros((1, seen_dim)), jnp.zeros((1, action_dim))
        policy_params = actor.init(actor_key, obs)
        actor_params = whole(policy_params, eye)
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
            adam.init(policy_params),
            adam.init((*critics, *eye)),
            adam.init(log_alpha),
            hyper,
            key,
        )

    def act(params: Params, obs: Any, key: PRNGKeyArray) -> Array:
        policy_params, eye = split(params)
        return sample_squashed(key, *policy(policy_params, see(eye, obs)))[0]

    def mode(params: Params, obs: Any) -> Array:
        policy_params, eye = split(params)
        return jnp.tanh(policy(policy_params, see(eye, obs))[0])

    def descend(params: Params, grads: Params, opt: optax.OptState, rate: Array) -> tuple:
        direction, opt = adam.update(grads, opt)
        return jax.tree.map(lambda p, d: p - rate * d, params, direction), opt

    def grad_step(
        learner: Learner, batch: replay.Transition, key: PRNGKeyArray
    ) -> tuple[Learner, dict[str, Array]]:
        next_key, actor_key = jax.random.split(key)
        alpha = jnp.exp(learner.log_alpha["log_alpha"])
        policy_params, eye = split(learner.actor)

        next_obs = see(eye, batch.next_obs)
        next_action, next_log_prob = sample_squashed(next_key, *policy(policy_params, next_obs))
        next_q = jnp.minimum(*(value(c, next_obs, next_action) for c in learner.target_critics))
        target = batch.reward + learner.hyper.gamma * batch.discount * (
            next_q - alpha * next_log_prob
        )

        def critic_loss(params: tuple[Params, ...]) -> tuple[Array, tuple[Array, Array]]:
            obs = see(params[2:], batch.obs)
            q_1, q_2 = (value(c, obs, batch.action) for c in params[:2])
            return ((q_1 - target) ** 2 + (q_2 - target) ** 2).mean(), (q_1.mean(), obs)

        params = (*learner.critics, *eye)
        (q_loss, (q_mean, obs)), grads = jax.value_and_grad(critic_loss, has_aux=True)(params)
        params, critics_opt = descend(
            params, grads, learner.critics_opt, learner.hyper.learning_rate
        )
        critics, eye = params[:2], params[2:]

        def actor_loss(params: Params) -> tuple[Array, Array]:  # obs is a constant here
            mean, log_std = policy(params, obs)
            action, log_prob = sample_squashed(actor_key, mean, log_std)
            q = jnp.minimum(*(value(c, obs, action) for c in critics))
            loss = (alpha * log_prob - q).mean()
            if config.smoothness:
                then = jnp.tanh(policy(params, next_obs)[0])
                loss += config.smoothness * ((jnp.tanh(mean) - then) ** 2).sum(-1).mean()
            return loss, log_prob.mean()

        (pi_loss, log_prob), grads = jax.value_and_grad(actor_loss, has_aux=True)(policy_params)
        policy_params, actor_opt = descend(
            policy_params, grads, learner.actor_opt, learner.hyper.learning_rate
        )
        actor_params = whole(policy_params, eye)

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

    def shifted(batch: replay.Transition, frames: Array, key: PRNGKeyArray) -> replay.Transition:
        """With shifted images for their numbers."""

        def look(obs: Any, which: int) -> Any:
            now = jax.random.fold_in(key, which)
            return obs._replace(frames=random_shift(now, frames[obs.frames]))

        return batch._replace(obs=look(batch.obs, 1), next_obs=look(batch.next_obs, 2))

    def update(
        learner: Learner, batches: replay.Transition, frames: Array | None = None
    ) -> tuple[Learner, dict[str, Array]]:
        num_updates = batches.reward.shape[0]
        key, scan_key = jax.random.split(learner.key)
        keys = jax.random.split(scan_key, num_updates)

        def one(learner: Learner, drawn: tuple[replay.Transition, PRNGKeyArray]) -> tuple:
            batch, key = drawn
            batch = batch if frames is None else shifted(batch, frames, key)
            return grad_step(learner, batch, key)

        learner, info = jax.lax.scan(one, learner._replace(key=key), (batches, keys))
        return learner, jax.tree.map(jnp.mean, info)

    return SAC(init, act, mode, update)
