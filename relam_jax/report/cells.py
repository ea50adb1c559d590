"""Cells: one setting of one task each, trained with several seeds, and what came of them.

What is not finished is said to be so and never averaged in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.run_folder import Columns, read_csv
from relam_jax.report.statistics import success_interval
from relam_jax.training.config import TrainConfig, to_json
from relam_jax.training.provenance import read_provenance

BUDGETS = {
    "drawer_open": 40_000,
    "door_open": 60_000,
    "button_press": 40_000,
    "push_cube": 40_000,
}
"""env_steps a seed of the tasks that rewards are compared on: three of Meta-World, one of
ManiSkill."""
SLOW = ("push", "lever_pull")
"""Those of the ten further tasks that get 200,000 env_steps a seed, the others 48,000."""
TEN = (
    *("window_open", "window_close", "drawer_close", "door_close", "button_press_wall"),
    *("faucet_close", "handle_press", "coffee_button", "push", "lever_pull"),
)
OTHERS = (
    *("dense", "sparse", "final", "dacfo"),
    *("diffusion", "viper", "keypoint_diffusion", "oracle"),
)
"""Rewards that relam is compared with."""
PUBLISHED = ("--diffusion.novelty", "0.95", "--diffusion.sparse", "1")
"""Diffusion Reward's own weights: it reads the success flag."""
MODEL_ARGS = ("--selection.", "--keyframes.", "--fit.")
"""Arguments of experiments/train.py that make another anticipation model."""
LEVELS = (50, 95)
"""Success, %, whose first time is looked for."""
INTERVAL = (
    "95 %, bootstrap over episodes, stratified by seed (of these policies, not of further seeds); "
    "exact binomial where all ended alike"
)
ABOUT = (
    *("env_steps", "episodes", "episode_length", "training_episode_length"),
    *("env_steps_to_success", "demonstrations", "date", "commit", "hardware"),
)
"""What is kept of an evaluation.json besides the outcomes."""
OUTCOMES = ("success_any", "success_in_time", "success_end")
VARYING = ("seed", "out", "data", "videos", "anticipation")
"""Fields of a run's config that differ from seed to seed, or from machine to machine."""
COPIED = ("eval", "train")
"""Logs of a run that are kept beside the results."""


@dataclass(frozen=True)
class Cell:
    """One setting of one task."""

    task: str
    env_steps: int
    """Budget a seed."""
    reward: str = "relam"
    tracker: str = "truth"
    """Of the demonstrations: truth is the simulator's own."""
    views: int = 2
    observation: str = "keypoints+proprio"
    keypoints: str = "projected"
    """Of the policy: tracked are followed in images."""
    num_seeds: int = 5
    train_args: tuple[str, ...] = ()
    """More arguments of experiments/train.py."""
    variant: str = ""
    """What those are called in the names of its files."""

    @property
    def records(self) -> str:
        """Name of its keypoint records, which cells share."""
        return f"{self.task}-{self.views}-{self.tracker}"

    @property
    def model(self) -> str:
        """Name of its anticipation model, which cells share."""
        own = any(word.startswith(MODEL_ARGS) for word in self.train_args)
        return self.records + (f"-{self.variant}" if own else "")

    @property
    def name(self) -> str:
        """Name of its files and folders."""
        name = f"{self.records}-{self.reward}-{self.observation.replace('+', '_')}"
        name += "-tracked" if self.keypoints == "tracked" else ""
        return name + (f"-{self.variant}" if self.variant else "")

    @property
    def label(self) -> str:
        """What tells it from the other cells of its task."""
        words = [self.reward]
        words += ["Lucas-Kanade"] * (self.tracker == "lucas_kanade")
        words += ["1 view"] * (self.views == 1)
        words += ["no proprio"] * (self.observation == "keypoints")
        words += ["rgb"] * (self.observation == "rgb")
        words += ["tracked"] * (self.keypoints == "tracked")
        words += [self.variant] * bool(self.variant)
        return ", ".join(words)

    def run(self, out: Path, seed: int) -> Path:
        """Run folder of a seed."""
        return out / "runs" / self.name / f"seed{seed}"

    def anticipation(self, out: Path) -> Path:
        """Folder of its anticipation model."""
        return out / "anticipation" / self.model

    def video_model(self, out: Path) -> Path:
        """Folder of the video model of its reward, if that needs one."""
        return out / "video" / self.records


def _baselines(cells: Sequence[Cell]) -> list[Cell]:
    """The other rewards on the same tasks, three seeds each."""
    flag = {"train_args": PUBLISHED, "variant": "flag"}
    others = [{"reward": reward} for reward in OTHERS] + [{"reward": "diffusion", **flag}]
    return [replace(cell, num_seeds=3, **other) for other in others for cell in cells]


def _suites() -> dict[str, tuple[Cell, ...]]:
    *three, cube = (Cell(task, budget) for task, budget in BUDGETS.items())
    alone = [replace(cell, observation="keypoints") for cell in three]
    pixels = [replace(cell, tracker="lucas_kanade") for cell in three]
    suites = {
        "main": [c for triple in zip(alone, three, pixels, strict=True) for c in triple],
        "one_view": [replace(cell, views=1) for cell in three],
        "baselines": _baselines(three),
        "ten": [Cell(task, 200_000 if task in SLOW else 48_000, num_seeds=3) for task in TEN],
        "tracked": [
            replace(cell, keypoints="tracked", observation="keypoints", num_seeds=3)
            for cell in pixels[:2]
        ],
        "maniskill": [cube, Cell("pick_cube", 120_000), *_baselines([cube])],
    }
    return {name: tuple(cells) for name, cells in suites.items()}


SUITES = _suites()


def default_keypoints(result: dict[str, Any]) -> bool:
    """Whether a cell's result is of two views and projected keypoints."""
    setting = {"views": 2, "keypoints": "projected"}
    # results of a version before a field existed are of the field's default
    return all(result.get(k, v) == v for k, v in setting.items())


def reward_name(result: dict[str, Any]) -> str:
    """The reward of a cell's result, and which variant of it."""
    return ", ".join(filter(None, (result["reward"], result.get("variant"))))


def first_reaching(
    x: Float[np.ndarray, " R"], success: Float[np.ndarray, " R"], level: float
) -> float | None:
    """`x` of the first evaluation with at least this share of successes; None if there is none."""
    reached = np.flatnonzero(success >= level - 1e-9)
    return float(x[reached[0]]) if len(reached) else None


def median_reached(values: Sequence[float | None]) -> float | None:
    """Median over seeds, never being later than any time; None if that is never, or no seeds."""
    if not values:
        return None
    median = float(np.median([np.inf if v is None else v for v in values]))
    return median if np.isfinite(median) else None


def collect_seed(run: Path, seed: int, env_steps: int) -> dict[str, Any]:
    """What there is of one seed; `evaluation` is None until it was evaluated at its full budget."""
    evals, evaluation = read_csv(run / "eval.csv"), _read_json(run / "evaluation.json")
    if evaluation and (evaluation["env_steps"] < env_steps or "episode_length" not in evaluation):
        evaluation = None  # of an earlier, smaller budget or an earlier version
    kept = ("env_steps", "minutes", "success", "success_end", "stage", "tracker_error")
    out: dict[str, Any] = {
        "seed": seed,
        "finished": evaluation is not None,
        "curve": {name: evals[name].tolist() for name in kept if name in evals},
        "reached": {str(level): _reached(evals, level) for level in LEVELS},
        "evaluation": None,
        "starts": read_provenance(run),
    }
    if evaluation:
        [share] = evaluation["per_seed"]
        outcomes = {name: digits for name, [digits] in evaluation["outcomes"].items()}
        out["evaluation"] = share | {"outcomes": outcomes} | {k: evaluation[k] for k in ABOUT}
    return out


def written(cell: Cell, results: Path) -> dict[str, Any] | None:
    """What `results` holds of a cell with this budget, perhaps from another machine."""
    found = _read_json(results / f"{cell.name}.json")
    return found if found and found["env_steps"] == cell.env_steps else None


def collect_cell(
    cell: Cell,
    out: Path,
    commands: Sequence[str] = (),
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All that the run folders in `out` hold of a cell, as JSON can hold it; of a seed that is not
    finished there, what `earlier` holds, an earlier such result.

    Means and medians are over finished seeds alone. ValueError if those were evaluated on different
    numbers of episodes.
    """
    earlier = earlier or {"seeds": (), "train_config": None, "one_config": True}
    seeds = [collect_seed(cell.run(out, s), s, cell.env_steps) for s in range(cell.num_seeds)]
    before = {s["seed"]: s for s in earlier["seeds"] if s["finished"]}
    seeds = [s if s["finished"] else before.get(s["seed"], s) for s in seeds]
    done = [s for s in seeds if s["finished"]]
    evaluations = [s["evaluation"] for s in done]
    episodes = {e["episodes"] for e in evaluations}
    if len(episodes) > 1:
        raise ValueError(
            f"the seeds of {cell.name} were evaluated on different numbers of episodes "
            f"({', '.join(map(str, sorted(episodes)))}): delete their evaluation.json, start again"
        )
    error = (_read_json(cell.anticipation(out) / "config.json") or {}).get("test_error")
    configs = [_read_json(cell.run(out, s["seed"]) / "config.json") for s in seeds]
    configs = [c for c in (*configs, earlier["train_config"]) if c]
    configs = [{k: v for k, v in c.items() if k not in VARYING} for c in configs]
    # seeds of a version before a field existed did what its default says
    whole = [json.loads(to_json(TrainConfig())) | c for c in configs]
    reached = {}
    for level in map(str, LEVELS):
        times = {u: [s["reached"][level][u] for s in done] for u in ("env_steps", "minutes")}
        reached[level] = {
            "seeds": sum(v is not None for v in times["env_steps"]),
            **{f"median_{unit}": median_reached(values) for unit, values in times.items()},
        }
    success = {name: _interval(e["outcomes"][name] for e in evaluations) for name in OUTCOMES}
    hardware = [e["hardware"] for e in evaluations]
    return {
        "cell": cell.name,
        "label": cell.label,
        **asdict(cell),
        "complete": len(done) == cell.num_seeds,
        "finished_seeds": [s["seed"] for s in done],
        "episodes": episodes.pop() if episodes else None,
        **success,
        "interval": INTERVAL,
        "reached": reached,
        "seeds": seeds,
        "demonstrations": evaluations[0]["demonstrations"] if done else None,
        "anticipation": {
            "held_out_error": error,
            "median": float(np.median(error)) if error else None,
            "unit": "image sides, a subgoal; median over points and clips never trained on",
        },
        "train_config": configs[0] if configs else None,
        "one_config": all(c == whole[0] for c in whole) and earlier["one_config"],
        "commands": list(commands),
        "date": max((e["date"] for e in evaluations), default=None),
        "machine": [h for i, h in enumerate(hardware) if h not in hardware[:i]],
    }


def _interval(outcomes: Iterable[str]) -> dict[str, float] | None:
    """Of strings of one digit an episode, a string a seed; None if there are none."""
    rows = [[digit == "1" for digit in digits] for digits in outcomes]
    return success_interval(np.array(rows, bool))._asdict() if rows else None


def write_cell(
    cell: Cell, out: Path, results: Path, commands: Sequence[str] = (), add: bool = False
) -> bool:
    """Write `<results>/<cell>.json` and copy its raw logs; False if nothing was logged yet.

    With `add`, finished seeds that are written there stay, unless the run folders hold them too.
    """
    result = collect_cell(cell, out, commands, written(cell, results) if add else None)
    if not any(seed["curve"] for seed in result["seeds"]):
        return False
    raw = results / "raw" / cell.name
    raw.mkdir(parents=True, exist_ok=True)
    for seed in range(cell.num_seeds):
        for log in COPIED:
            _copy(cell.run(out, seed) / f"{log}.csv", raw / f"seed{seed}.{log}.csv")
    _copy(cell.anticipation(out) / "fit.csv", raw / "anticipation.fit.csv")
    text = json.dumps(result, indent=1) + "\n"
    write_atomic(results / f"{cell.name}.json", re.sub(_LONG, _one_line, text).encode())
    return True


_LONG = re.compile(r"\[[^\[\]{}\"]*\]")
"""Arrays of numbers, which are easier to read on one line each."""


def _one_line(match: re.Match[str]) -> str:
    return re.sub(r"\s+", " ", match[0]).replace("[ ", "[").replace(" ]", "]")


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        write_atomic(target, source.read_bytes())


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and start again") from error


def _reached(evals: Columns, level: int) -> dict[str, float | None]:
    units = ("env_steps", "minutes")
    if not evals:
        return dict.fromkeys(units)
    return {unit: first_reaching(evals[unit], evals["success"], level / 100) for unit in units}


def read_results(results: Path) -> list[dict[str, Any]]:
    """Every cell that was ever written to `results`, in the order of the suites."""
    order = {cell.name: i for i, cell in enumerate(c for cells in SUITES.values() for c in cells)}
    found = [r for r in map(_read_json, sorted(results.glob("*.json"))) if r and "cell" in r]
    return sorted(found, key=lambda r: order.get(r["cell"], len(order)))
