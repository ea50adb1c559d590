"""Fits that are killed go on where they were, bit for bit."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relam_jax import fitting
from relam_jax.anticipation.fit_task import learn_anticipation
from relam_jax.anticipation.train import FitConfig
from relam_jax.fitting import Unfinished, descend
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.records import write_records
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.logs import RunLog
from tests.keypoints.synthetic import record

ADAM = optax.adam(0.1)
DATA = np.linspace(-1, 1, 32)


class Killed(Exception):
    """What a kill does to a fit, but for the process."""


@pytest.fixture(autouse=True)
def written_each_time(monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)


def grad_step(carry, number):
    params, opt = carry
    x = jax.random.choice(jax.random.fold_in(jax.random.key(0), number), jnp.asarray(DATA))
    loss, grads = jax.value_and_grad(lambda p: (p["w"] * x - 2 * x) ** 2)(params)
    change, opt = ADAM.update(grads, opt)
    return (optax.apply_updates(params, change), opt), {"loss": loss}


def fit(folder, data=DATA, kill_at=None, **options):
    """The parameters, and the steps that were logged."""
    params, logged = {"w": jnp.float32(0.0)}, []
    kept = Unfinished(folder, "settings", data)

    def log(steps, metrics):
        if steps == kill_at:
            raise Killed
        logged.append(steps)

    carry = params, ADAM.init(params)
    return descend(grad_step, carry, 100, 10, "toy", log=log, kept=kept, **options), logged


def off(params):
    return jnp.abs(params["w"] - 2)


@pytest.mark.parametrize("options", [{}, {"validate": off}])
def test_a_killed_fit_goes_on_bit_for_bit(tmp_path, options):
    (tmp_path / "whole").mkdir()
    whole, logged = fit(tmp_path / "whole", **options)
    assert logged == list(range(10, 101, 10)) and off(whole) < 0.1
    with pytest.raises(Killed):
        fit(tmp_path, kill_at=60, **options)
    after, logged = fit(tmp_path, **options)
    assert after == whole and logged == [60, 70, 80, 90, 100]
    again, logged = fit(tmp_path, **options)
    assert again == whole and logged == [], "what is whole is not fitted again"
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(again)), "as a whole fit's"


def test_patience_is_not_renewed_by_a_kill(tmp_path):
    looks = iter([1.0, *[2.0] * 99])  # never better than at first
    patient = {"validate": lambda params: next(looks), "patience": 4}
    with pytest.raises(Killed):
        fit(tmp_path, kill_at=30, **patient)  # written at 10 and 20
    assert fit(tmp_path, **patient)[1] == [30, 40, 50]


def test_other_data_are_fitted_from_the_start(tmp_path):
    with pytest.raises(Killed):
        fit(tmp_path, kill_at=60)
    assert fit(tmp_path, data=DATA + 1)[1][0] == 10
    Unfinished(tmp_path, "settings", DATA).remove()
    assert list(tmp_path.iterdir()) == []


def test_nan_is_named(tmp_path):
    def broken(carry, number):
        return carry, {"loss": jnp.where(number > 15, jnp.nan, 0.0)}

    with pytest.raises(FloatingPointError, match="the toy's loss is NaN after 20 steps"):
        descend(broken, ({},), 100, 10, "toy")


def test_an_anticipation_model_goes_on_where_it_was(tmp_path, monkeypatch):
    write_records(tmp_path / "data", [record(seed) for seed in range(8)])
    settings = SelectionConfig(), KeyframeConfig(), FitConfig(num_steps=60, eval_every=20)
    whole = learn_anticipation(tmp_path / "data", tmp_path / "whole", *settings)
    written = RunLog.write

    def killed_at_40(self, name, steps, metrics):
        if steps == 40:
            raise Killed
        written(self, name, steps, metrics)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunLog, "write", killed_at_40)
        learn_anticipation(tmp_path / "data", tmp_path / "model", *settings)
    again = learn_anticipation(tmp_path / "data", tmp_path / "model", *settings)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole.params, again.params))
    rows = list(csv.DictReader((tmp_path / "model/fit.csv").open()))
    assert [row["env_steps"] for row in rows] == ["20", "40", "60"]
    assert not list((tmp_path / "model").glob("*.unfinished"))
