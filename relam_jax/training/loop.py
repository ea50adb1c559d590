"""The training loop: act, learn while the simulators step, store; evaluate, log, checkpoint."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from relam_jax.agents import frames, replay
from relam_jax.agents.dacfo import METRICS, DACfO, Discriminator
from relam_jax.agents.sac import SAC, Learner, make_sac
from relam_jax.anticipation.plan import Anticipation
from relam_jax.envs.measured import MeasuredEnv
from relam_jax.logs import RunLog
from relam_jax.training.checkpoint import Checkpoints
from relam_jax.training.config import TrainConfig
from relam_jax.training.evaluate import evaluate, summary
from relam_jax.training.goal_env import GoalEnv
from relam_jax.training.imitation import make_imitation
from relam_jax.training.task_env import make_goal_env

TIMERS = ("stepping", "learning", "training", "evaluating")


def over_seeds(fn: Any) -> Any:
    """Run `fn` for each seed of the leading axis: side by side on an accelerator, in turn on a CPU.

    A batched matrix product is no faster than its parts on a CPU, and slower for one seed; batched
    QR decompositions (orthogonal initial weights) can wait for one another for ever.
    """
    if jax.default_backend() == "cpu":
        return lambda *args: jax.lax.map(lambda x: fn(*x), args)
    return jax.vmap(fn)


def make_steps(
    config: TrainConfig, agent: SAC, imitation: DACfO | None = None
) -> tuple[Any, Any, Any]:
    """The three jitted functions of the loop, over S seeds: act, mode, learn.

    With `imitation` the discriminator learns first, as many grad_steps as the agent, and then pays
    for what the agent learns from; its state is None without. What `learn` is shown: the frames of
    the film, and then those of the demonstrations, if there are any.
    """
    shape = (config.updates_per_iteration, config.sac.batch_size)

    @jax.jit
    def act(actor: Any, obs: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, now = jax.random.split(key)
        keys = jax.random.split(now, config.num_seeds)
        obs = jax.tree.map(lambda x: x.reshape(config.num_seeds, -1, *x.shape[1:]), obs)
        return jax.vmap(agent.act)(actor, obs, keys), key

    @jax.jit
    def mode(actor: Any, obs: Any) -> jax.Array:
        return jax.vmap(agent.mode)(actor, obs)

    @partial(jax.jit, donate_argnums=(0, 1))
    def learn(
        learner: Learner,
        judge: Discriminator | None,
        buffer: replay.Replay,
        shown: tuple[jax.Array, ...],
        key: jax.Array,
    ) -> tuple[Learner, Discriminator | None, dict]:
        keys = jax.random.split(key, config.num_seeds)
        draw = partial(
            replay.sample, shape=shape, n_step=config.sac.n_step, num_envs=config.num_envs
        )
        film = shown[:1]
        if imitation is None:
            batches = jax.vmap(draw)(buffer, keys, gamma=learner.hyper.gamma)
            learner, info = over_seeds(lambda *x: agent.update(*x, *film))(learner, batches)
            return learner, None, info

        reward, discriminate = imitation.reward, imitation.update
        others = jax.random.split(jax.random.fold_in(key, 1), config.num_seeds)
        pairs = (config.updates_per_iteration, config.dacfo.batch_size)
        rows = jax.vmap(partial(replay.sample, shape=pairs))(buffer, others)
        judge, judged = over_seeds(lambda *x: discriminate(*x, *shown))(
            judge, rows.obs, rows.next_obs
        )

        def draw_paid(buffer: Any, key: Any, gamma: Any, judge: Any) -> replay.Transition:
            return draw(buffer, key, gamma=gamma, pay=lambda *x: reward(judge, *x, *film))

        batches = jax.vmap(draw_paid)(buffer, keys, learner.hyper.gamma, judge)
        learner, info = over_seeds(lambda *x: agent.update(*x, *film))(learner, batches)
        return learner, judge, info | judged

    return act, mode, learn


@partial(jax.jit, donate_argnums=0)
def store(
    buffer: replay.Replay, obs: Any, action: Any, reward: Any, next_obs: Any, last: Any
) -> replay.Replay:
    """Append one vector step, (S·N, …) → (S, N, …). A time limit is no termination: discount 1."""
    seeds = buffer.position.shape[0]
    rows = replay.Transition(obs, action, reward, jnp.ones_like(reward), next_obs)
    rows, last = jax.tree.map(lambda x: x.reshape(seeds, -1, *x.shape[1:]), (rows, last))
    return jax.vmap(replay.add)(buffer, rows, last)


def check_finite(metrics: dict[str, float], env_steps: int) -> None:
    """Raise FloatingPointError with the names of what is not finite."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(f"NaN after {env_steps} env_steps in: {', '.join(bad)}")


def train(
    config: TrainConfig, anticipation: Anticipation, resume: bool = False
) -> dict[str, float]:
    """Train `num_seeds` policies to `total_env_steps` each; returns the last evaluation's summary.

    Raises:
        FloatingPointError: a metric is NaN; its name is in the message.
        OSError: a checkpoint or log could not be written.
        SystemExit: SIGTERM came; a checkpoint was written.
    """
    # ---- environments and agent ----
    run = config.run_folder
    env = make_goal_env(config, anticipation, config.num_seeds * config.num_envs, "train")
    eval_env = make_goal_env(config, anticipation, config.num_seeds * config.eval_episodes, "eval")
    agent = make_sac(config.sac, env.obs_dim, env.action_dim, env.frame_shape)
    imitation, demonstrated = None, None
    if config.reward == "dacfo":
        imitation, demonstrated = make_imitation(config, anticipation)
    act, mode, learn = make_steps(config, agent, imitation)
    per_iteration = config.env_steps_per_iteration
    iterations = -(-config.total_env_steps // per_iteration)
    steps_kept = -(-config.replay_capacity // config.num_envs)
    capacity, episode_steps = steps_kept * config.num_envs, config.episode_agent_steps

    # ---- state: everything that a checkpoint holds ----
    init_key, act_key, learn_key, random_key = jax.random.split(jax.random.key(config.seed), 4)
    seed_keys = jax.random.split(init_key, config.num_seeds)
    learner = jax.jit(over_seeds(agent.init))(seed_keys)
    judge = jax.jit(over_seeds(imitation.init))(seed_keys) if imitation else None
    sighted = env.frame_shape is not None
    buffer = jax.vmap(lambda _: replay.init(capacity, env.obs_dim, env.action_dim, sighted))(
        seed_keys
    )

    def new_film() -> frames.Film | None:
        length = frames.film_length(steps_kept, episode_steps)
        return frames.init(length, env.obs.frames) if sighted else None

    film = new_film()
    iteration, next_eval, stored_since, seconds = 0, 0, 0, defaultdict(float)

    def snapshot() -> dict[str, Any]:
        return {
            "learner": learner._asdict(),
            "replay": buffer._asdict() if config.checkpoint_replay else {},
            **({"film": film._asdict()} if film and config.checkpoint_replay else {}),
            "env": env.state(),
            "act_key": act_key,
            "iteration": np.int64(iteration),
            "next_eval": np.int64(next_eval),
            "seconds": {k: np.float64(seconds[k]) for k in TIMERS},
        } | ({} if judge is None else {"discriminator": judge._asdict()})

    checkpoints = Checkpoints(run)
    if resume and checkpoints.latest() is not None:
        stored = checkpoints.restore(snapshot(), config)
        learner = Learner(**stored["learner"])
        judge = None if judge is None else Discriminator(**stored["discriminator"])
        if config.checkpoint_replay:
            buffer = replay.Replay(**stored["replay"])
        env.set_state(stored["env"])
        film = frames.Film(**stored["film"]) if "film" in stored else new_film()
        act_key = stored["act_key"]
        iteration, next_eval = int(stored["iteration"]), int(stored["next_eval"])
        stored_since = 0 if config.checkpoint_replay else iteration
        seconds.update({k: float(v) for k, v in stored["seconds"].items()})
        print(f"resumed {run} at {iteration * per_iteration} env_steps")
    finished = iteration >= iterations
    if finished:
        print("the run is complete: raise --total_env_steps to go on")
    logged = iteration * per_iteration
    log = RunLog(run, {"train": logged, "eval": logged} if iteration else None)

    stop_signal: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: stop_signal.append(number))
    last_save, last_eval, window = time.monotonic(), {}, defaultdict(list)
    bar = tqdm(
        total=iterations * per_iteration,
        initial=iteration * per_iteration,
        desc=f"{config.task} {config.reward}",
        unit="env_step",
        disable=None,
        smoothing=0.05,
    )

    def run_evaluation() -> dict[str, float]:
        began = time.monotonic()
        result = evaluate(
            eval_env,
            lambda obs: mode(learner.average_actor, obs),
            config.num_seeds,
            config.episode_agent_steps,
        )
        seconds["evaluating"] += time.monotonic() - began
        metrics = summary(result)
        if isinstance(eval_env.env, MeasuredEnv):
            metrics["tracker_error"] = eval_env.env.take_error()
        if not finished:
            spent = time.monotonic() - began
            extra = {
                "minutes": total_minutes(seconds),
                "env_steps_per_second": eval_env.num_envs * config.episode_length / spent,
            }
            log.write("eval", iteration * per_iteration, metrics | extra)
        bar.set_postfix(success=f"{metrics['success']:.2f}", stage=f"{metrics['stage']:.2f}")
        return metrics

    try:
        # ---- loop ----
        while iteration < iterations:
            if iteration * per_iteration >= next_eval:
                last_eval = run_evaluation()
                next_eval += config.eval_every
            began = time.monotonic()
            # a run resumed without its replay first fills it again, with its policy
            warm = (iteration - stored_since) * per_iteration >= config.learning_starts
            obs = env.obs
            action, act_key = act(learner.actor, obs, act_key)
            if iteration * per_iteration < config.learning_starts:
                key = jax.random.fold_in(random_key, iteration)
                action = jax.random.uniform(key, action.shape, minval=-1.0)
            action = action.reshape(env.num_envs, -1)
            info = {}
            if warm and config.updates_per_iteration:  # runs while the simulators step
                key = jax.random.fold_in(learn_key, iteration)
                shown = () if film is None else (film.frames,)
                shown += () if demonstrated is None else (demonstrated,)
                learner, judge, info = learn(learner, judge, buffer, shown, key)
            stepped = time.monotonic()
            step = env.step(np.asarray(action))
            seconds["stepping"] += time.monotonic() - stepped
            final = step.final_obs
            if film:
                film, obs, final = frames.record(
                    film, obs, final, step.obs, step.truncated, episode_steps
                )
            buffer = store(buffer, obs, action, step.pay, final, step.truncated)
            waited = time.monotonic()
            jax.block_until_ready((learner, buffer, film))
            seconds["learning"] += time.monotonic() - waited
            seconds["training"] += time.monotonic() - began
            iteration += 1
            bar.update(per_iteration)

            window["reward"].append(step.reward)
            window["pay"].append(step.pay)
            window["distance"].append(step.distance)
            window["met"].append(step.stage / step.num_stages)
            window["info"].append(info)
            if step.truncated.any():
                window["stage"].append((step.stage / step.num_stages)[step.truncated])
                window["success"].append(step.success[step.truncated])
            if iteration % max(1, config.eval_every // per_iteration // 8) == 0:
                metrics = flush(window, env)
                spent = max(seconds["training"], 1e-9)
                taken = config.num_seeds * iteration * per_iteration
                learned = max(0, iteration - round(config.learning_starts / per_iteration))
                metrics |= {
                    "env_steps_per_second": taken / spent,
                    "stepping_per_second": taken / max(seconds["stepping"], 1e-9),
                    "grad_steps_per_second": (
                        config.num_seeds * learned * config.updates_per_iteration / spent
                    ),
                    "stepping_share": seconds["stepping"] / spent,
                    "learning_wait_share": seconds["learning"] / spent,
                }
                check_finite(metrics, iteration * per_iteration)
                log.write("train", iteration * per_iteration, metrics)
            due = time.monotonic() - last_save > 60 * config.checkpoint_minutes
            if stop_signal or due:
                check_finite({k: float(v.mean()) for k, v in info.items()}, iteration)
                checkpoints.save(iteration * per_iteration, snapshot(), config)
                last_save = time.monotonic()
            if stop_signal:
                raise SystemExit(
                    f"stopped by SIGTERM at {iteration * per_iteration} env_steps; "
                    "go on with --resume"
                )
        last_eval = run_evaluation()
        if not finished:
            checkpoints.save(iteration * per_iteration, snapshot(), config)
    finally:
        signal.signal(signal.SIGTERM, previous)
        bar.close()
        log.close()
        checkpoints.close()
        env.env.close()
        eval_env.env.close()
    return last_eval


def total_minutes(seconds: dict[str, float]) -> float:
    """Wall minutes of training and evaluating so far."""
    return (seconds["training"] + seconds["evaluating"]) / 60


def flush(window: dict[str, list], env: GoalEnv) -> dict[str, float]:
    """Means of what was gathered since the last call, by name."""
    reward, met = (float(np.mean(window[name])) for name in ("reward", "met"))
    metrics = {"reward": reward, "stages_met": met}
    if env.video_pay is not None:
        metrics["pay"] = float(np.mean(window["pay"]))
    for name in ("stage", "success"):
        if window[name]:
            metrics[name] = float(np.mean(np.concatenate(window[name])))
        else:
            metrics[name] = 0.0
    distance = np.mean([np.asarray(d).mean(0) for d in window["distance"]], axis=0)
    for v, view in enumerate(env.env.view_names):
        for e, entity in enumerate(env.env.entity_names):
            metrics[f"distance_{view}_{entity}"] = float(distance[v, e])
    infos = [i for i in window["info"] if i]
    names = ("critic_loss", "actor_loss", "q", "entropy", "alpha")
    for name in (*names, *(METRICS if env.reward_source == "dacfo" else ())):
        metrics[name] = float(np.mean([i[name] for i in infos])) if infos else 0.0
    window.clear()
    return metrics
