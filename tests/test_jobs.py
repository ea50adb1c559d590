"""Jobs and their pool: what a failure stops, what is not made again, a Ray worker killed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.preprocess.test_ray import descendants

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))
import jobs  # noqa: E402  # pyright: ignore[reportMissingImports]

sys.path.remove(str(EXPERIMENTS))


def python_job(folder, name, code, needs=()):
    command = (sys.executable, "-c", code, str(folder / name))
    done = (folder / name).exists
    return jobs.Job(name, command, folder / f"{name}.log", done, needs)


TOUCH = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"


def run_pool(some):
    pool = jobs.Pool({job.name: job for job in some}, jobs.LocalRunner(2))
    pool.start()
    while pool.active():
        time.sleep(0.02)
    return pool


def test_a_failure_stops_what_needs_it_alone(tmp_path, capsys):
    some = [
        python_job(tmp_path, "a", "raise SystemExit('error: no luck')"),
        python_job(tmp_path, "b", TOUCH, ("a",)),
        python_job(tmp_path, "c", TOUCH, ("b",)),
        python_job(tmp_path, "d", TOUCH),
        python_job(tmp_path, "e", TOUCH, ("d",)),
        python_job(tmp_path, "f", "pass"),
    ]
    pool = run_pool(some)
    assert [pool.state[n] for n in "abcdef"] == [
        *("failed", "blocked", "blocked", "done", "done", "failed")
    ]
    a, f = sorted(pool.problems)
    assert a == f"a failed with exit code 1 (error: no luck); its log: {tmp_path / 'a.log'}"
    assert f == f"f ended without a result; its log: {tmp_path / 'f.log'}"


def test_nothing_is_made_for_what_is_finished(tmp_path, capsys):
    (tmp_path / "product").touch()
    some = [
        python_job(tmp_path, "source", "raise SystemExit('must not run')"),
        python_job(tmp_path, "product", "raise SystemExit('must not run')", ("source",)),
    ]
    assert set(run_pool(some).state.values()) == {"done"}
    some.append(python_job(tmp_path, "more", TOUCH, ("product",)))
    assert set(run_pool(some).state.values()) == {"done"}


def test_stopping_ends_children_and_starts_no_more(tmp_path, capsys):
    some = [
        python_job(tmp_path, "slow", "import time; time.sleep(60)"),
        python_job(tmp_path, "next", TOUCH, ("slow",)),
    ]
    pool = jobs.Pool({job.name: job for job in some}, jobs.LocalRunner(1))
    pool.start()
    while not pool.running:
        time.sleep(0.01)
    pool.stop()
    pool.threads[0].join(20)
    assert not pool.active() and not pool.problems
    assert set(pool.state.values()) == {"waiting"}


def test_two_at_once_are_refused(tmp_path):
    with (
        jobs.claim(tmp_path),
        pytest.raises(ValueError, match="another run, or what is left of one, is at work"),
    ):
        jobs.claim(tmp_path)
    jobs.claim(tmp_path).close()


ON_RAY = """
import sys, time
from pathlib import Path
from jobs import Job, Pool, RayRunner

folder = Path(sys.argv[1])
slow = (
    "import os, sys, time; from pathlib import Path; here = Path(sys.argv[1]); "
    "print('at work', flush=True); (here / f'started.{os.getpid()}').touch(); "
    "time.sleep(6 if len(list(here.glob('started.*'))) == 1 else 0); (here / 'slow').touch()"
)
quick = "import sys; from pathlib import Path; here = Path(sys.argv[1]); (here / 'quick').touch()"
jobs = [
    Job(name, (sys.executable, "-c", code, str(folder)), folder / f"{name}.log", done, needs)
    for name, code, done, needs in (
        ("slow", slow, (folder / "slow").exists, ()),
        ("quick", quick, (folder / "quick").exists, ("slow",)),
        ("bad", "raise SystemExit('no luck')", bool, ("slow",)),
    )
]
pool = Pool({job.name: job for job in jobs}, RayRunner("local", 2))
pool.start()
while pool.active():
    time.sleep(0.05)
print(dict(sorted(pool.state.items())), pool.problems)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: make setup EXTRAS=ray"
)
def test_a_killed_ray_worker_is_replaced_and_its_process_dies_with_it(tmp_path):
    said = complained = ""
    first: list[Path] = []
    for _ in range(3):
        run = subprocess.Popen(
            [sys.executable, "-c", ON_RAY, str(tmp_path)],
            cwd=EXPERIMENTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (first := list(tmp_path.glob("started.*"))) and run.poll() is None:
            time.sleep(0.02)
        if run.poll() is None:
            [worker] = descendants(run.pid, b"ray::run_here")
            os.kill(worker, signal.SIGKILL)
        said, complained = run.communicate(timeout=300)
        if "Ray could not be started" not in complained:  # in its 30 s, on a busy machine
            break
    assert "'bad': 'failed', 'quick': 'done', 'slow': 'done'" in said, said + complained
    assert "bad failed with exit code 1 (no luck)" in said
    assert len(list(tmp_path.glob("started.*"))) == 2, "started again"
    assert not Path("/proc", first[0].suffix[1:]).exists(), "no second writer is left behind"
