"""Cells as jobs: recording, tracking, anticipation, policies and their evaluation.

Jobs run as processes, one a core, or on a Ray cluster; each has its log beside its product. What is
there is not made again, so that a command that was killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fit_anticipation import fitted
from jobs import Job, LocalRunner, Pool, RayRunner, claim
from tqdm import tqdm
from train import parse

from relam_jax.diffusion.fit import FILMED
from relam_jax.envs.tasks import resolve_task
from relam_jax.report.cells import Cell, write_cell, written

HERE = Path(__file__).parent


@dataclass(frozen=True)
class HarnessArgs:
    """What the command lines of all that train cells have in common."""

    seeds: int = 0
    """Seeds a cell (default: the table's)."""
    total_env_steps: int = 0
    """Budget a seed, env_steps (default: the table's)."""
    num: int = 30
    """Demonstrations a task."""
    episodes: int = 30
    """Episodes a seed of the final evaluation."""
    train_args: str = ""
    """More arguments of experiments/train.py, also for the anticipation model, in one word:
    --train_args "--eval_every 4000 --fit.num_steps 500"."""
    record_args: str = ""
    """More arguments of experiments/record_demos.py, likewise."""
    workers: int = 0
    """Jobs at a time (default: one a core; one where jax sees a GPU; what a cluster has)."""
    ray: str = ""
    """Address of a Ray cluster to run the jobs on, or `local`; its machines see the same files."""
    out: Path = Path("runs/metaworld")
    """Videos, records, models and runs."""
    results: Path = Path("results/metaworld")
    """Tables, plots and raw logs."""
    add: bool = False
    """Keep the seeds that are finished in --results, of whatever machine, and train only others."""
    collect_only: bool = False
    """Run nothing: write down what there is."""


# ---- cells and jobs ----


def script(name: str, *words: object) -> tuple[str, ...]:
    """The command of a script of this folder."""
    return (sys.executable, str(HERE / name), *map(str, words))


def make_jobs(cells: Sequence[Cell], args: HarnessArgs) -> dict[str, Job]:
    """All jobs of the cells by name, each after those that it needs."""
    jobs: dict[str, Job] = {}
    for cell in cells:
        new = model_jobs(cell, args)
        earlier = written(cell, args.results) if args.add else None
        kept = earlier["finished_seeds"] if earlier else ()
        for seed in range(cell.num_seeds):
            new += seed_jobs(cell, seed, seed in kept, args)
        jobs |= {job.name: job for job in new if job.name not in jobs}
    return jobs


def model_jobs(cell: Cell, args: HarnessArgs) -> list[Job]:
    """Recording, tracking, anticipation and, if its reward needs one, the video model of a cell,
    which other cells may share."""
    task, model = cell.task, cell.anticipation(args.out)
    videos = videos_of(cell, args)
    data = args.out / "data" / cell.records
    more = [*shlex.split(args.train_args), *cell.train_args]
    words = ["--task", task, "--num", args.num, "--truth", "--overwrite"]
    record = Job(
        f"record {task}",
        script("record_demos.py", *words, "--out", videos, *shlex.split(args.record_args)),
        beside(videos),
        lambda: recorded(videos, args.num),
    )
    words = ("-m", "preprocess_torch", "--data", videos, "--out", data, "--tracker", cell.tracker)
    words += ("--cameras", resolve_task(task).one_view) if cell.views == 1 else ()
    track = Job(
        f"track {cell.records}",
        (sys.executable, *map(str, words)),
        beside(data),
        lambda: (data / "dataset_info.json").exists() and not (data / ".parts").exists(),
        (record.name,),
    )
    train_args = ["--task", task, "--data", str(data), "--out", str(model), *more]
    fit = Job(
        f"anticipation {cell.model}",
        script("fit_anticipation.py", *train_args),
        beside(model),
        lambda: fitted(model, parse(train_args)[0]),
        (track.name,),
    )
    if cell.reward not in FILMED:
        return [record, track, fit]
    film = cell.video_model(args.out)
    words = ("--task", task, "--data", data, "--videos", videos, "--diffusion.model", film)
    video = Job(
        f"video model {cell.records}",
        script("fit_video_model.py", *words, *more),
        beside(film),
        lambda: (film / "config.json").exists(),
        (track.name,),
    )
    return [record, track, fit, video]


def videos_of(cell: Cell, args: HarnessArgs) -> Path:
    """Folder of a cell's demonstrations; records are named after the folder."""
    return args.out / "videos" / cell.task


def seed_jobs(cell: Cell, seed: int, kept: bool, args: HarnessArgs) -> tuple[Job, Job]:
    """Training and final evaluation of one seed; nothing to do if its results are `kept`."""
    run = cell.run(args.out, seed)
    needs, film = (f"anticipation {cell.model}",), ()
    if cell.reward in FILMED:
        needs = (*needs, f"video model {cell.records}")
        film = ("--diffusion.model", cell.video_model(args.out))
    train = Job(
        f"train {cell.name} seed {seed}",
        script(
            "train.py",
            *("--task", cell.task, "--anticipation", cell.anticipation(args.out)),
            *("--data", args.out / "data" / cell.records, "--videos", videos_of(cell, args)),
            *("--out", run, "--resume"),
            *("--reward", cell.reward, "--observation", cell.observation, "--seed", seed),
            *("--keypoints", cell.keypoints),
            *film,
            *("--total_env_steps", cell.env_steps, *shlex.split(args.train_args)),
            *cell.train_args,
        ),
        beside(run),
        lambda: trained_env_steps(run) >= cell.env_steps,
        needs,
    )
    video = "--video" if seed == 0 else "--no-video"
    evaluate = Job(
        f"evaluate {cell.name} seed {seed}",
        script("evaluate.py", "--run", run, "--episodes", args.episodes, video),
        run.with_name(f"{run.name}.evaluation.log"),
        lambda: kept or evaluated(run, cell.env_steps, args.episodes),
        (train.name,),
    )
    return train, evaluate


def beside(product: Path) -> Path:
    """The log of what makes this folder."""
    return product.with_name(f"{product.name}.log")


def recorded(videos: Path, num: int) -> bool:
    """Whether all demonstrations are there: demos.json is written last."""
    if not (videos / "demos.json").exists():
        return False
    there = len(json.loads((videos / "demos.json").read_text())["episodes"])
    if there != num:
        raise ValueError(f"{videos} holds {there} episodes, not {num}: use --num {there}")
    return True


def trained_env_steps(run: Path) -> int:
    """env_steps of the newest whole checkpoint, 0 without one."""
    folders = (run / "checkpoints").glob("*")
    return max((int(path.name) for path in folders if path.name.isdigit()), default=0)


def evaluated(run: Path, env_steps: int, episodes: int) -> bool:
    """Whether the run was evaluated at its full budget."""
    file = run / "evaluation.json"
    found = json.loads(file.read_text()) if file.exists() else {"env_steps": -1}
    whole = found["env_steps"] >= env_steps and found["episodes"] == episodes
    return whole and "success_in_time" in found


# ---- running them ----


def logged_env_steps(run: Path) -> int:
    """env_steps of the last whole row of train.csv, 0 without one."""
    try:
        with (run / "train.csv").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            rows = file.read().decode(errors="replace").split("\n")[:-1]
        return int(float(rows[-1].split(",")[0]))
    except (OSError, ValueError, IndexError):
        return 0


def progress(cells: Sequence[Cell], out: Path) -> int:
    """env_steps of all training jobs so far."""
    runs = ((cell, cell.run(out, seed)) for cell in cells for seed in range(cell.num_seeds))
    return sum(
        min(cell.env_steps, max(logged_env_steps(run), trained_env_steps(run)))
        for cell, run in runs
    )


def commands(cell: Cell, jobs: dict[str, Job]) -> list[str]:
    """How the first seed of a cell was made, from nothing."""
    names, found = [f"evaluate {cell.name} seed 0"], []
    while names:
        job = jobs[names.pop()]
        found.append(shlex.join(("python", *job.command[1:])).replace(f"{HERE.parent}/", ""))
        names += job.needs
    return found[::-1]


def carry_out(
    cells: Sequence[Cell], args: HarnessArgs, write_summary: Callable[[Path], None]
) -> int:
    """Do the jobs of the cells, or only collect what there is; returns the exit code.

    Finished cells are written to `args.results` as they come; `write_summary` then makes its tables
    and plots of all that lie there.

    Raises:
        ValueError: an argument is wrong, or a product of other settings is in the way.
    """
    if min(args.num, args.episodes) < 1 or min(args.seeds, args.total_env_steps, args.workers) < 0:
        raise ValueError("--num and --episodes are at least 1, no number is negative")
    for cell in cells:
        words = ["--task", cell.task, "--total_env_steps", str(cell.env_steps)]
        parse([*words, *shlex.split(args.train_args), *cell.train_args])[0].check()
    jobs = make_jobs(cells, args)

    def collect(some: Sequence[Cell]) -> list[str]:
        problems = []
        for cell in some:
            try:
                write_cell(cell, args.out, args.results, commands(cell, jobs), args.add)
            except ValueError as error:
                problems.append(str(error))
        write_summary(args.results)
        return problems

    if args.collect_only:
        problems = collect(cells)
        print("; ".join(problems) or f"written to {args.results}")
        return int(bool(problems))
    with claim(args.out) as lock:
        if args.ray:
            pool = Pool(jobs, RayRunner(args.ray, args.workers))
        else:
            pool = Pool(jobs, LocalRunner(args.workers, lock.fileno()))
        for problem in pool.problems:
            print(problem, file=sys.stderr)
        signals: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _: signals.append(n))
        pool.start()
        try:
            watch(pool, cells, args.out, signals, collect)
        finally:  # no process is left behind, whatever happened
            pool.stop()
            for thread in pool.threads:
                thread.join()
    pool.problems += collect(cells)
    if signals:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 1
    if pool.problems:
        print(
            f"{pool.count('failed')} jobs failed and {pool.count('blocked')} that need them were "
            f"left out: {'; '.join(pool.problems)}",
            file=sys.stderr,
        )
        return 1
    print(f"all {len(jobs)} jobs are done; written to {args.results}")
    return 0


def watch(
    pool: Pool,
    cells: Sequence[Cell],
    out: Path,
    signals: Sequence[int],
    collect: Callable[[Sequence[Cell]], list[str]],
) -> None:
    """Until the workers are through: show progress, collect finished cells, pass signals on."""
    open_cells, total = list(cells), sum(cell.num_seeds * cell.env_steps for cell in cells)
    bar = tqdm(
        total=total, initial=progress(cells, out), unit="env_step", disable=None, unit_scale=1
    )
    with bar:
        while pool.active():
            time.sleep(1.0)
            if signals and not pool.stopping:
                tqdm.write("stopping: waiting for checkpoints", file=sys.stderr)
                pool.stop()
            bar.set_postfix_str(f"{pool.count('done')} of {len(pool.jobs)} jobs", refresh=False)
            bar.update(progress(cells, out) - bar.n)
            finished = [
                cell
                for cell in open_cells
                if all(
                    pool.state[f"evaluate {cell.name} seed {seed}"] == "done"
                    for seed in range(cell.num_seeds)
                )
            ]
            open_cells = [cell for cell in open_cells if cell not in finished]
            if finished and not pool.stopping:
                collect(finished)


def joined(argv: Sequence[str]) -> list[str]:
    """`--train_args X` as `--train_args=X`: tyro takes a value that begins with -- only so."""
    words: list[str] = []
    for word in argv:
        if words and words[-1].replace("-", "_") in ("__train_args", "__record_args"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words
