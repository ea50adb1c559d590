"""The bench's count of operations, and what it says of a library that is not there."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents.replay import Transition
from relam_jax.agents.sac import SACConfig, make_sac

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def bench(monkeypatch):
    for name in ("OMP_NUM_THREADS", "XLA_FLAGS"):
        monkeypatch.setenv(name, "")  # the script sets them: put them back afterwards
    spec = importlib.util.spec_from_file_location("bench", EXPERIMENTS / "bench.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench", module)
    spec.loader.exec_module(module)
    return module


def product_flops(jaxpr) -> int:
    """FLOP of the matrix products of a traced function, loops and inner functions included."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            total += 2 * eqn.outvars[0].aval.size * int(np.prod([left[i] for i in contracted]))
        for inner in jax.core.jaxprs_in_params(eqn.params):
            total += eqn.params.get("length", 1) * product_flops(inner)
    return total


@pytest.mark.parametrize("widths", [(32, 32), (24, 16, 8)])
def test_flop_count_equals_that_of_the_traced_update(bench, widths):
    obs_dim, action_dim, batch = 5, 3, 8
    config = SACConfig(widths=widths, batch_size=batch)
    agent = make_sac(config, obs_dim, action_dim)
    shapes = ((obs_dim,), (action_dim,), (), (), (obs_dim,))
    batches = Transition(*(jnp.zeros((1, batch, *shape)) for shape in shapes))
    traced = jax.make_jaxpr(agent.update)(agent.init(jax.random.key(0)), batches)
    # autodiff also takes the gradient of both critics' obs in the actor's loss: nobody needs it
    needless = 2 * 2 * batch * obs_dim * widths[0]
    counted = bench.update_flops(obs_dim, action_dim, config)
    assert product_flops(traced.jaxpr) == counted + needless


def test_flop_count_of_the_quoted_work(bench):
    assert bench.update_flops(39, 4, SACConfig()) == pytest.approx(604e6, rel=1e-3)


def test_a_library_that_is_missing_has_a_row_with_the_reason(bench):
    other = bench.Other("brax", Path(sys.executable))  # the project's own Python has no brax
    rates = [other.rate()]
    other.close()
    row = other.row(rates, limits=[100.0])
    assert row.value is None and "brax" in row.note
    assert f"| brax | – | grad_steps |  | {row.note} |" in bench.speed_table([row.__dict__])


def test_without_the_other_environment_each_row_says_so(bench, tmp_path):
    other = bench.Other("sbx", tmp_path / "python")
    row = other.row([other.rate()], limits=[100.0])
    assert row.value is None and "make bench" in row.note


def test_a_library_that_ends_without_a_word_has_a_row(bench, tmp_path):
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    other = bench.Other("sbx", silent)
    row = other.row([other.rate(), other.rate()], limits=[100.0])
    other.close()
    assert row.value is None and "ended" in row.note


def test_the_worker_answers_in_json_lines():
    command = [sys.executable, str(EXPERIMENTS / "bench_others.py"), "sbx"]
    result = subprocess.run(command, input="\n", capture_output=True, text=True, check=True)
    (line,) = result.stdout.splitlines()
    assert "sbx" in json.loads(line)["reason"]
