"""The README's numbers are those of results/."""

import pytest

from relam_jax.report.readme import ROOT, with_tables


def test_its_tables_are_those_of_the_results():
    readme = (ROOT / "README.md").read_text()
    stale = "stale: run `make tables`"
    assert readme == with_tables(readme, ROOT / "results"), stale
    with pytest.raises(ValueError, match="no block `<!-- success -->`"):
        with_tables("nothing", ROOT / "results")
