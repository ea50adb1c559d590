"""How fast learning and stepping are, beside what the machine can do at most and other libraries.

    make bench        # or, where .venv-bench is made: python experiments/bench.py

All rates are a CPU-second (user + system) of the process that works, so that another load on the
machine matters little. Learning rows are measured in turns and the medians of those turns quoted;
compare rows of one run, not of two. Writes results/bench.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from relam_jax import cli
from relam_jax.agents import replay
from relam_jax.agents.dacfo import DACfOConfig, make_dacfo
from relam_jax.agents.sac import SACConfig, make_sac
from relam_jax.anticipation.model import AnticipationModel, ModelConfig
from relam_jax.anticipation.plan import Anticipation
from relam_jax.diffusion.bins import make_bins
from relam_jax.diffusion.fit import NATS, DiffusionConfig, VideoModel, make_judge
from relam_jax.diffusion.pay import VideoPay
from relam_jax.envs import make_env
from relam_jax.envs.protocol import BatchedEnv
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.report.readme import speed_table
from relam_jax.training import loop
from relam_jax.training.config import TrainConfig
from relam_jax.training.goal_env import GoalEnv, _on_device
from relam_jax.training.provenance import provenance
from relam_jax.training.task_env import make_goal_env

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("sbx", "stable-baselines3", "brax")
GRAD_STEPS = 64
"""a call, here and in bench_others.py."""
PRODUCTS = 1_500
"""matrix products a call: about as long as those grad_steps, so that noise hits both alike."""


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    task: str = "drawer_open"
    """Task that is stepped and trained."""
    repeats: int = 5
    """Turns of the learning rows."""
    out: Path = Path("results/bench.json")
    """Result file."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    value: float | None
    """None: it could not be measured."""
    unit: str
    percent: float | None = None
    """of the limit or of what the name says."""
    note: str = ""
    """versions, spread, or the reason why there is no value."""


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU-seconds of this process during one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def median_rate(work: Callable[[], object], count: int, repeats: int = 7) -> float:
    """Median over repeats of count / CPU-seconds of a call of `work`, after one that compiles."""
    work()
    return float(np.median([count / cpu_seconds(work) for _ in range(repeats)]))


# ---------------------------------------------------------------- learning


def update_flops(obs_dim: int, action_dim: int, config: SACConfig) -> float:
    """FLOP of the matrix products that one grad_step cannot do without.

    Forward passes: actor on next_obs and on obs, two target critics, two critics twice. Backward:
    weights and hidden inputs of actor and critics; for the actor's loss the critics' inputs alone,
    of the first layer only the action.
    """
    hidden = sum(a * b for a, b in zip(config.widths, config.widths[1:], strict=False))
    first, last = config.widths[0], config.widths[-1]
    actor = obs_dim * first + hidden + 2 * action_dim * last
    critic = (obs_dim + action_dim) * first + hidden + last
    forward = 2 * actor + 6 * critic
    weights = actor + 2 * critic
    inputs = (actor - obs_dim * first) + 2 * (hidden + last) + 2 * (critic - obs_dim * first)
    return 2 * config.batch_size * (forward + weights + inputs)


def gemm(count: int) -> Callable[[], object]:
    """`count` matrix products of the size of the networks' (256³, float32) by XLA."""
    a = jax.random.normal(jax.random.key(0), (256, 256))
    product = jax.jit(lambda x: jax.lax.fori_loop(0, count, lambda _, y: 0.01 * (y @ a), x))
    return lambda: jax.block_until_ready(product(a))


def blas(count: int) -> Callable[[], object]:
    """The same by numpy's BLAS, which no jitted program can call."""
    a = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    out = np.empty_like(a)
    return lambda: [np.dot(a, a, out=out) for _ in range(count)]


def sac(obs_dim: int, action_dim: int, config: SACConfig) -> Callable[[], object]:
    """`GRAD_STEPS` as the training loop does them: one gather from the replay, one scan."""
    agent = make_sac(config, obs_dim, action_dim)
    capacity, key = 20_000, jax.random.key(0)
    obs = jax.random.normal(key, (capacity, obs_dim))
    rows = replay.Transition(obs, obs[:, :action_dim], obs[:, 0], jnp.ones(capacity), obs)
    buffer = replay.add(replay.init(capacity, obs_dim, action_dim), rows)

    @jax.jit
    def learn(learner: Any, buffer: replay.Replay, key: jax.Array) -> Any:
        batches = replay.sample(buffer, key, (GRAD_STEPS, config.batch_size))
        return agent.update(learner, batches)[0]

    learner = agent.init(key)
    return lambda: jax.block_until_ready(learn(learner, buffer, key))


class Other:
    """A library in a process of its own (bench_others.py); see there for the protocol."""

    def __init__(self, name: str, python: Path = ROOT / ".venv-bench/bin/python") -> None:
        self.name, self.versions, self.reason, self.process = name, "", "", None
        if not python.exists():
            self.reason = "no .venv-bench: `make bench` makes it"
            return
        self.process = subprocess.Popen(
            [python, ROOT / "experiments/bench_others.py", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        versions = self._answer().get("versions", {})
        self.versions = ", ".join(f"{k} {v}" for k, v in versions.items())

    def _answer(self) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"reason": "its process ended without a word"}
        self.reason = answer.get("reason", "")
        return answer

    def rate(self) -> float:
        """grad_steps a CPU-second of one more call; NaN if it does not run."""
        if self.reason or self.process is None or self.process.stdin is None:
            return float("nan")
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer().get("rate", float("nan"))

    def row(self, rates: list[float], limits: list[float]) -> Row:
        """Its line of the table: a median, or the reason why there is none."""
        if self.reason or not np.isfinite(rates).all():
            return Row(self.name, None, "grad_steps", note=self.reason or "no number")
        return learning_row(self.name, rates, limits, self.versions)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.communicate()


def learning_row(name: str, rates: list[float], limits: list[float], note: str) -> Row:
    """Medians of grad_steps a CPU-second and of their share of the same turn's limit; spread."""
    share = float(np.median([100 * r / limit for r, limit in zip(rates, limits, strict=True)]))
    spread = f"{min(rates):.0f} to {max(rates):.0f}"
    return Row(name, float(np.median(rates)), "grad_steps", share, f"{spread}; {note}")


def learning(obs_dim: int, repeats: int) -> Iterator[Row]:
    """Matrix products, our agent and the other libraries, in turns."""
    plain = SACConfig(layer_norm=False)
    ours = {
        "relam_jax": (39, plain),
        "relam_jax, LayerNorm": (39, SACConfig()),
        f"relam_jax, LayerNorm, obs {obs_dim}": (obs_dim, SACConfig()),
    }
    works = {name: (sac(dim, 4, config), GRAD_STEPS) for name, (dim, config) in ours.items()}
    works |= {"xla": (gemm(PRODUCTS), PRODUCTS), "blas": (blas(PRODUCTS), PRODUCTS)}
    for work, _ in works.values():
        work()
    others = [Other(name) for name in OTHERS]
    rates: dict[str, list[float]] = {name: [] for name in (*works, *OTHERS)}
    for _ in range(repeats):
        for name, (work, count) in works.items():
            rates[name].append(count / cpu_seconds(work))
        for other in others:
            rates[other.name].append(other.rate())
    for other in others:
        other.close()

    product, median = 2 * 256**3, {name: float(np.median(r)) for name, r in rates.items()}

    def limits(dim: int, config: SACConfig) -> list[float]:
        return [r * product / update_flops(dim, 4, config) for r in rates["xla"]]

    yield Row("matrix products 256³, XLA: the limit", median["xla"] * product / 1e9, "GFLOP", 100.0)
    share = 100 * median["blas"] / median["xla"]
    yield Row("the same by numpy's BLAS", median["blas"] * product / 1e9, "GFLOP", share)
    for name, (dim, config) in ours.items():
        note = f"{update_flops(dim, 4, config) / 1e6:.0f} MFLOP each"
        yield learning_row(name, rates[name], limits(dim, config), note)
    for other in others:
        yield other.row(rates[other.name], limits(39, plain))


# ---------------------------------------------------------------- stepping and the whole loop


def untrained(task: str, num_stages: int = 4) -> Anticipation:
    """An anticipation model of the default size with random parameters: it costs what a fitted one
    does."""
    env = make_env(task, 1, seed=0)
    views, entities = len(env.view_names), len(env.entity_names)
    model, shape = ModelConfig(), (1, 2, views, entities, 4)
    params = jax.jit(AnticipationModel(model).init)(
        jax.random.key(0), jnp.zeros((*shape, 2)), jnp.ones(shape, bool), jnp.zeros((1, 12 * views))
    )
    env.close()
    return Anticipation(
        model=model,
        selection=SelectionConfig(),
        keyframes=KeyframeConfig(),
        task=task,
        view_names=env.view_names,
        entity_names=env.entity_names,
        num_stages=num_stages,
        test_error=(0.01,) * num_stages,
        group_error=(((0.01,) * entities,) * views,) * num_stages,
        params=params,
    )


def env_steps(task: str, num_envs: int = 16, agent_steps: int = 40) -> float:
    """Simulator steps a CPU-second: stepping, success, projected keypoints, a reset an episode."""
    env = make_env(task, num_envs, seed=0, num_threads=1)
    candidates = env.reset()
    indices = np.zeros((*candidates.visibility.shape[:3], 8), int)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (agent_steps, num_envs, 4)).astype(np.float32)

    def episode() -> None:
        env.reset(init_states=np.zeros(num_envs, int))
        env.follow(indices)
        for action in actions:
            env.step(action)

    result = median_rate(episode, num_envs * agent_steps * env.action_repeat)
    env.close()
    return result


def picture_rows(task: str, num_envs: int = 4) -> list[Row]:
    """Pictures a CPU-second: rendered, and rendered with their keypoints followed; none where no
    OpenGL works."""

    def begun(keypoints: Literal["projected", "tracked"]) -> BatchedEnv:
        env = make_env(
            task, num_envs, seed=0, keypoints=keypoints, num_threads=1, num_init_states=1
        )
        env.reset()
        env.follow(np.zeros((num_envs, 2, 2, 1), int))
        return env

    def render_all() -> None:
        for index, view in everything:
            env.render(index, view)

    env = begun("projected")
    everything = list(np.ndindex(num_envs, len(env.view_names)))
    if env.render(0, 0) is None:
        env.close()
        return [Row(f"rendering {task}", None, "pictures", note="no OpenGL works here")]
    rendered = median_rate(render_all, len(everything))
    env.close()
    env = begun("tracked")
    action = np.full((num_envs, env.action_dim), 0.1, np.float32)
    rate = median_rate(lambda: env.step(action), len(everything))
    env.close()
    share = f"stepping, rendering ({100 * rate / rendered:.0f} %), following 64 points"
    return [
        Row(f"rendering {task}, 256 px", rendered, "pictures"),
        Row("tracked keypoints, 256 px", rate, "pictures", note=share),
    ]


def maniskill_rows() -> list[Row]:
    """ManiSkill's CPU simulation as it ships and as we step it; none where it is not installed."""
    if find_spec("mani_skill") is None:
        return []
    command = [sys.executable, str(ROOT / "experiments/bench_maniskill.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = []
    for result in map(json.loads, done.stdout.splitlines()):
        ours, original = result["relam_jax"], result["original"]
        note = f"{ours / original:.1f} times the original's {original:.0f}"
        rows.append(Row(f"stepping {result['task']}", ours, "env_steps", note=note))
    return rows


def microseconds(call: Callable[[], object], count: int = 100) -> float:
    """CPU-µs of a call whose arrays are waited for, the mean of `count`."""

    def calls() -> None:
        for _ in range(count):
            jax.block_until_ready(call())

    return 1e6 / median_rate(calls, count)


def reward_microseconds(env: GoalEnv) -> float:
    """CPU-µs of keypoints → (reward, stage, observation) of all environments, transfer included."""
    seen = env.env.step(np.zeros((env.num_envs, env.action_dim), np.float32))
    return microseconds(lambda: env._advance(env.goal, env.stage, _on_device(seen), env.shift))


def dacfo_microseconds(num_envs: int, features: int = 8) -> float:
    """CPU-µs of the discriminator's pay for one step of all environments."""
    pairs = np.random.default_rng(0).random((256, 2, features), np.float32)
    agent = make_dacfo(DACfOConfig(), pairs)
    judge, reward = agent.init(jax.random.key(0)), jax.jit(agent.reward)
    now, then = jnp.asarray(pairs[:num_envs]).swapaxes(0, 1)
    return microseconds(lambda: reward(judge, now, then))


def video_microseconds(kind: str, num_envs: int, places: int = 8) -> float:
    """CPU-µs of an untrained video model's pay for one step of all environments; `kind`: of
    `NATS`. Rendering is left out."""
    config, key, rng = DiffusionConfig(), jax.random.key(0), np.random.default_rng(0)
    judge, side = make_judge(config, kind), config.frame_size
    if judge.vqvae:
        shown = rng.integers(0, 255, (num_envs, side, side, 3)).astype(np.uint8)
        codec = judge.vqvae.init(key, jnp.asarray(shown[:1]))
    else:
        shown = rng.random((num_envs, places), np.float32)
        codec = make_bins([shown])
    model = VideoModel(codec, None, jnp.zeros(2), jnp.ones(2))
    tokens = judge.tokens(model, jnp.asarray(shown[:1]))
    past = jnp.repeat(tokens[:, None], config.history, axis=1)
    model = model._replace(params=jax.jit(judge.denoiser.init)(key, tokens, past))
    judged = VideoPay(model, config, shown, 1, 0, kind)
    return microseconds(lambda: judged.pay(shown, np.zeros(num_envs, bool)), count=1)


def whole_loop(task: str, utd: float, windows: int, anticipation: Anticipation) -> list[Row]:
    """The training loop itself over `windows` quarters of an episode, at most 6.

    It logs a row each quarter; the CPU and wall time between rows is what is quoted, so that
    evaluations and compilation are left out.
    """
    marks: list[tuple[int, float, dict[str, float]]] = []

    class Marks(loop.RunLog):
        def write(self, name: str, env_steps: int, metrics: dict[str, float]) -> None:
            super().write(name, env_steps, metrics)
            if name == "train":
                marks.append((env_steps, time.process_time(), metrics))

    quarter = 480  # env_steps: 16 environments × 30
    config = TrainConfig(
        task=task,
        num_envs=16,
        episode_length=120,
        utd=utd,
        learning_starts=quarter,
        total_env_steps=quarter * (windows + 2),  # the first learns nothing, the second compiles
        eval_every=8 * quarter,  # eight rows to an evaluation: the only one is before them
        eval_episodes=1,
        checkpoint_replay=False,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop, "RunLog", Marks),
        contextlib.redirect_stdout(sys.stderr),
    ):
        loop.train(replace(config, out=folder), anticipation)

    marks = marks[1:]
    wall = [(steps / m["env_steps_per_second"], m) for steps, _, m in marks]
    spent = wall[-1][0] - wall[0][0]

    def share(name: str) -> float:
        return 100 * (wall[-1][0] * wall[-1][1][name] - wall[0][0] * wall[0][1][name]) / spent

    steps, cpu = marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1]
    shares = f"wall time: stepping {share('stepping_share'):.0f} %"
    shares += f", then waiting for learning {share('learning_wait_share'):.0f} %"
    return [Row(f"training, {utd:g} grad_steps an env_step", steps / cpu, "env_steps", note=shares)]


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    anticipation = untrained(args.task)
    env = make_goal_env(TrainConfig(task=args.task), anticipation, 16, "train")
    rows = list(learning(env.obs_dim, args.repeats))
    reward = reward_microseconds(env)
    env.env.close()
    update = next(1e6 / row.value for row in rows if row.value and row.name == "relam_jax")
    rows += [
        Row(f"stepping {args.task}", env_steps(args.task), "env_steps"),
        *(
            Row(name, spent, "µs", note=f"{100 * spent / update:.1f} % of one grad_step")
            for name, spent in (
                ("relam: reward, stages, observation of 16 envs", reward),
                ("dacfo: reward of 16 envs", dacfo_microseconds(16)),
                *((f"{kind}: reward of 16 envs", video_microseconds(kind, 16)) for kind in NATS),
            )
        ),
    ]
    rows += picture_rows(args.task)
    rows += maniskill_rows()
    for utd, windows in ((1.0, 2), (0.125, 4)):
        rows += whole_loop(args.task, utd, windows, anticipation)
    result = provenance() | {"rows": [row.__dict__ for row in rows]}
    print(speed_table(result["rows"]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    cli.run(main)
