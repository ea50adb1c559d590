"""Tables and figures of experiments/sensitivity.py."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from relam_jax.report.cells import Cell, write_cell
from relam_jax.report.sensitivity import FACTORS, write_sensitivity
from tests.report.test_reproduction import make_run

CELL = Cell("drawer_open", 4000, num_seeds=1)
LINEAR = replace(CELL, train_args=("--shaping.form", "linear"), variant="form_linear")


def test_table_and_figure_of_a_factor_show_what_each_value_did(tmp_path):
    out, results = tmp_path / "out", tmp_path / "results"
    make_run(out, CELL, 0, [0, 0, 0.5, 1, 1], "1111111111")
    make_run(out, LINEAR, 0, [0, 0, 0, 0.3, 0.4], "1111000000")
    for cell in (CELL, LINEAR):
        assert write_cell(cell, out, results)
    settings = {"form": [("linear", LINEAR), ("exp", CELL), ("tanh", replace(CELL, variant="x"))]}
    quality = {LINEAR.name: {"an_entity": 3.5, "in_sight": 0.91, "apart": 0.1}}
    write_sensitivity(results, settings, quality)
    text = (results / "table.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| value", "| ---", "| linear", "| **exp**"]
    assert "| linear | 3.5 | 91 | 10 | – | – | – | 1 × 10 | 4k | 40 [10, 70] |" in rows[2]
    assert "3k (1 of 1)" in rows[3] and "– (0 of 1)" in rows[2]
    figure = (results / "form.svg").read_text()
    ElementTree.fromstring(figure)
    assert figure.count("<svg") == 3 and ">linear<" in figure and ">tanh<" not in figure


def test_factors_are_arguments_of_train():
    assert len({factor.name for factor in FACTORS}) == len(FACTORS)
    assert FACTORS[3].train_args(0.1)[-2:] == ("--keyframes.min_gap", "0.1")
