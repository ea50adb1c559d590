"""The numbers of `make reproduce-metaworld`: its cells, what came of them, their table and plots.

A cell is one setting of one task, trained with several seeds. What is not finished is said to be so
and never averaged in.
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
from markupsafe import Markup
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.run_folder import Columns, read_csv
from relam_jax.report.statistics import success_interval
from relam_jax.report.svg import INK, SIZE, panel, run_colour, to_svg
from relam_jax.training.config import TrainConfig, to_json
from relam_jax.training.provenance import read_provenance

BUDGETS = {"drawer_open": 40_000, "door_open": 60_000, "button_press": 40_000}
"""env_steps a seed of the three tasks that everything is compared on."""
TEN = (
    *("window_open", "window_close", "drawer_close", "door_close", "button_press_wall"),
    *("faucet_close", "handle_press", "coffee_button", "push", "lever_pull"),
)
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
VARYING = ("seed", "out", "data", "anticipation")
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

    @property
    def model(self) -> str:
        """Name of its anticipation model, which cells share."""
        return f"{self.task}-{self.views}-{self.tracker}"

    @property
    def name(self) -> str:
        """Name of its files and folders."""
        name = f"{self.model}-{self.reward}-{self.observation.replace('+', '_')}"
        return name + ("-tracked" if self.keypoints == "tracked" else "")

    @property
    def label(self) -> str:
        """What tells it from the other cells of its task."""
        words = [self.reward]
        words += ["Lucas-Kanade"] * (self.tracker == "lucas_kanade")
        words += ["1 view"] * (self.views == 1)
        words += ["no proprio"] * (self.observation == "keypoints")
        words += ["tracked"] * (self.keypoints == "tracked")
        return ", ".join(words)

    def run(self, out: Path, seed: int) -> Path:
        """Run folder of a seed."""
        return out / "runs" / self.name / f"seed{seed}"

    def anticipation(self, out: Path) -> Path:
        """Folder of its anticipation model."""
        return out / "anticipation" / self.model


def _suites() -> dict[str, tuple[Cell, ...]]:
    three = [Cell(task, budget) for task, budget in BUDGETS.items()]
    pixels = [replace(cell, tracker="lucas_kanade") for cell in three]
    variants = ({"observation": "keypoints"}, {"views": 1})
    suites = {
        "main": [c for pair in zip(three, pixels, strict=True) for c in pair],
        "observation": [replace(cell, **variant) for variant in variants for cell in three],
        "baselines": [
            *(replace(c, reward=r) for r in ("dense", "sparse", "final") for c in three),
            *(replace(c, reward=r, num_seeds=3) for r in ("dacfo", "oracle") for c in three),
        ],
        "ten": [Cell(task, 48_000, num_seeds=3) for task in TEN],
        "tracked": [
            replace(cell, keypoints="tracked", observation="keypoints", num_seeds=3)
            for cell in pixels[:2]
        ],
    }
    return {name: tuple(cells) for name, cells in suites.items()}


SUITES = _suites()
FIGURES = {
    "main": SUITES["main"] + SUITES["baselines"],
    "observation": tuple(c for c in SUITES["main"] if c.tracker == "truth") + SUITES["observation"],
    "ten": SUITES["ten"],
    "tracked": SUITES["tracked"],
}
"""Cells that are plotted together."""
GAP = 14
"""Between panels, points."""


# ---- collect ----


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
    kept = ("env_steps", "minutes", "success", "success_end", "stage")
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


# ---- table ----

COLUMNS = (
    *("task", "reward", "keypoints", "views", "observation", "demonstrations", "seeds × episodes"),
    *("success % [95 % CI]", "in training's time %", "env_steps to 50 %", "env_steps to 95 %"),
    *("minutes to 50 %", "minutes to 95 %", "plan error", "commit"),
)
NOTE = f"""\
Success: the simulator's flag at any step of an episode of the benchmark's length (500 env_steps in
Meta-World), on initial states never trained on, at the end of the budget; interval: {INTERVAL}.
In training's time: the same within the shorter episodes of training (150 env_steps unless said).
Time to x %: the first evaluation during training, within its time, with so many successes; median
over seeds (never counts as later than any time; –: most never did) and how many seeds got there.
Minutes: wall time of training and evaluating; the JSON of a cell names the machine. Demonstrations:
what tracked them.
Plan error: median over the subgoals, thousandths of an image side, on clips never trained on.
Commit: of the code that evaluated, oldest seed first. Rows of other commits have the defaults of
their day (CHANGELOG.md).
`partial`: seeds are missing, and the numbers are of the finished ones alone.
"""


def table(results: Iterable[dict[str, Any]]) -> str:
    """Markdown, a row a cell."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_row, results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + NOTE


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    done, num_seeds = len(result["finished_seeds"]), result["num_seeds"]
    seeds = str(done) if result["complete"] else f"{done} of {num_seeds}"
    error = result["anticipation"]["median"]
    remark = "" if result["complete"] else " (partial)"
    remark += "" if result["one_config"] else " (settings differ between seeds)"
    times = [
        _time(result["reached"][str(level)], unit, done)
        for unit in ("env_steps", "minutes")
        for level in LEVELS
    ]
    return (
        *(
            result["task"],
            result["reward"],
            result.get("keypoints", "projected"),
            str(result["views"]),
        ),
        *(result["observation"], result["tracker"]),
        f"{seeds} × {result['episodes'] or '–'}",
        _percent(result["success_any"]) + remark,
        _percent(result.get("success_in_time")),
        *times,
        "–" if error is None else f"{1000 * error:.1f}",
        ", ".join(dict.fromkeys(commit[:7] for commit in _commits(result))) or "–",
    )


def _commits(result: dict[str, Any]) -> list[str]:
    """Of the finished seeds, by the date of their evaluation."""
    found = [s["evaluation"] for s in result["seeds"] if s["finished"]]
    return [e["commit"] for e in sorted(found, key=lambda e: e["date"])]


def _percent(interval: dict[str, float] | None) -> str:
    if interval is None:
        return "–"
    mean, low, high = (100 * interval[name] for name in ("mean", "low", "high"))
    return f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def _time(reached: dict[str, Any], unit: str, seeds: int) -> str:
    if not seeds:
        return "–"
    median = reached[f"median_{unit}"]
    if median is None:
        shown = "–"
    else:
        shown = f"{median / 1000:.0f}k" if unit == "env_steps" else f"{median:.1f}"
    return f"{shown} ({reached['seeds']} of {seeds})"


# ---- plots ----


def write_summary(results: Path) -> None:
    """Rewrite table.md and the plots from the cells that lie in `results`."""
    found = read_results(results)
    results.mkdir(parents=True, exist_ok=True)
    write_atomic(results / "table.md", table(found).encode())
    for figure, cells in FIGURES.items():
        names = {cell.name for cell in cells}
        shown = [r for r in found if r["cell"] in names]
        for unit in ("env_steps", "minutes"):
            if shown:
                write_atomic(results / f"{figure}-{unit}.svg", plot(shown, unit).encode())


def curves(result: dict[str, Any], unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Time (R,), mean over seeds, and success (S, R): of the finished seeds, or of all if none is.

    Seeds are cut to as many evaluations as all of them have.
    """
    seeds = [s for s in result["seeds"] if s["finished"]] or result["seeds"]
    logs = [s["curve"] for s in seeds if s["curve"]]
    rows = min((len(log["success"]) for log in logs), default=0)
    x = np.array([log[unit][:rows] for log in logs]).reshape(-1, rows)
    return x.mean(0), np.array([log["success"][:rows] for log in logs]).reshape(-1, rows)


def plot(results: Sequence[dict[str, Any]], unit: str) -> str:
    """A standalone SVG: success against env_steps or minutes, a panel a task, a line a cell.

    Lines are means over seeds, bands go from the worst seed to the best.
    """
    labels = list(dict.fromkeys(r["label"] for r in results))
    words = {"env_steps": "env_steps a seed", "minutes": "minutes of training"}[unit]
    panels = []
    for task in dict.fromkeys(r["task"] for r in results):
        figure, axes = panel(words)
        axes.set_title(task, loc="left", fontsize=9, color=INK)
        ends: list[tuple[float, float, str, str]] = []
        for result in (r for r in results if r["task"] == task):
            colour = run_colour(labels.index(result["label"]))
            x, success = curves(result, unit)
            if not len(x):
                continue
            axes.fill_between(x, success.min(0), success.max(0), color=colour, alpha=0.16, lw=0)
            axes.plot(x, success.mean(0), color=colour, linewidth=1.8)
            ends.append((float(x[-1]), float(success[:, -1].mean()), end_label(result), colour))
        axes.set(xlim=(0, None), ylim=(-0.03, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if unit == "env_steps":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for (x_end, _, text, colour), y in zip(ends, spread([e[1] for e in ends]), strict=True):
            axes.annotate(
                text,
                (x_end, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
                annotation_clip=False,
            )
        panels.append(to_svg(figure, f"{task}: success against {words}"))
    return grid(panels)


def end_label(result: dict[str, Any]) -> str:
    """What a line is, and how much of it is missing."""
    if result["complete"]:
        return result["label"]
    return f"{result['label']} ({len(result['finished_seeds'])}/{result['num_seeds']} seeds)"


def spread(ys: Sequence[float], gap: float = 0.09) -> list[float]:
    """Heights of labels between 0 and 1: near to `ys`, with `gap` between them."""
    placed, order = list(ys), sorted(range(len(ys)), key=lambda i: (-ys[i], i))
    limit = 1.0
    for i in order:  # down from the top, then up from the bottom
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    limit = 0.0
    for i in reversed(order):
        placed[i] = max(placed[i], limit)
        limit = placed[i] + gap
    return placed


def grid(panels: Sequence[Markup], columns: int = 3) -> str:
    """Panels of the page's look side by side, with the page's colours, as a file of its own."""
    width, height = (72 * side for side in SIZE)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    placed = [
        svg.replace(
            "<svg",
            f'<svg x="{i % columns * (width + GAP)}" y="{i // columns * (height + GAP)}" '
            f'width="{width}" height="{height}"',
            1,
        )
        for i, svg in enumerate(map(str, panels))
    ]
    box = f'viewBox="0 0 {columns * (width + GAP) - GAP} {rows * (height + GAP) - GAP}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" '
        f'aria-label="success of the trained policies"><style>{_colours()}</style>'
        + "\n".join(placed)
        + "</svg>\n"
    )


def _colours() -> str:
    """The page's colours of lines and text, light and dark."""
    page = Path(__file__).with_name("style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", page, re.S)[:2]
    chosen = [
        "".join(re.findall(r"--(?:muted|line|s\d): [^;]+;", block)).replace(": ", ":")
        for block in (light, dark)
    ]
    return f"svg{{{chosen[0]}}}@media (prefers-color-scheme:dark){{svg{{{chosen[1]}}}}}"
