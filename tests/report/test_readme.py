"""The README's numbers are those of results/."""

import pytest

from relam_jax.report.readme import ROOT, tables, with_tables


def test_its_tables_of_success_are_those_of_the_results():
    """(The one of speed is not compared: `make bench` measures it anew on any machine.)"""
    readme = (ROOT / "README.md").read_text()
    found = tables(ROOT / "results")
    for name in ("success", "rewards"):
        assert f"<!-- {name} -->\n{found[name]}<!-- end -->" in readme, "stale: run `make tables`"
    with pytest.raises(ValueError, match="no block `<!-- success -->`"):
        with_tables("nothing", ROOT / "results")
