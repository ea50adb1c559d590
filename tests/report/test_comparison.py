"""Rewards against each other."""

from dataclasses import replace

import numpy as np
import pytest

from relam_jax.report.cells import BUDGETS, Cell, collect_cell
from relam_jax.report.comparison import (
    area_under_curve,
    comparable,
    comparison_rows,
    iqm,
    iqm_interval,
)
from tests.report.test_reproduction import make_model, make_run


def test_iqm_is_the_mean_of_the_middle_half():
    scores = [np.array([0.0, 0.2, 0.4, 0.6]), np.array([0.8, 0.9, 1.0, 1.0])]
    assert iqm(scores) == pytest.approx(np.mean([0.4, 0.6, 0.8, 0.9]))


def test_seeds_are_drawn_within_their_task():
    apart = [np.zeros(4), np.ones(4)]
    assert iqm_interval(apart) == pytest.approx((0.5, 0.5, 0.5)), "whatever is drawn"
    mixed = [np.array([0.0, 1.0, 0.0, 1.0])] * 2
    mean, low, high = iqm_interval(mixed)
    assert low < mean == 0.5 < high


def test_area_does_not_depend_on_how_often_it_was_looked():
    line = {"env_steps": [0.0, 10.0, 20.0], "success": [0.0, 0.5, 1.0]}
    assert area_under_curve(line) == pytest.approx(0.5)
    assert area_under_curve({"env_steps": [0.0, 2.0, 20.0], "success": [0.0, 0.1, 1.0]}) == 0.5


def test_rewards_stand_by_their_success_and_gaps_are_shown(tmp_path):
    results = []
    for reward, outcomes in (("dense", "0001"), ("relam", "1111")):
        for task, budget in BUDGETS.items():
            cell = Cell(task, budget, reward=reward, num_seeds=2)
            make_model(tmp_path, cell)
            for seed in range(2):
                make_run(tmp_path, cell, seed, [0, 1.0], outcomes, budget)
            results.append(collect_cell(cell, tmp_path))
    few = results[:-1]
    other = replace(Cell("drawer_open", BUDGETS["drawer_open"], num_seeds=1), views=1)
    make_run(tmp_path, other, 0, [0, 0.0], "0000", other.env_steps)
    results.append(collect_cell(other, tmp_path))
    assert not comparable(results[-1]) and all(map(comparable, few))
    relam, dense = comparison_rows(results)
    assert relam == ("relam", *["100 (2)"] * 4, "100 [100, 100]", "50", "0.5")
    assert dense == ("dense", *["25 (2)"] * 4, "25 [25, 25]", "50", "0.5")
    assert comparison_rows(few) == [
        ("relam", *relam[1:4], *relam[5:]),
        ("dense", *dense[1:4], *dense[5:]),
    ], "what one reward alone was tried on is left out"
    flag = [{**r, "variant": "flag"} for r in few[:2]]
    assert comparison_rows([*results, *flag])[2] == ("dense, flag", *["25 (2)"] * 2, *["–"] * 5)
