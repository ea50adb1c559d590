"""The numbers of README and docs are those of results/."""

import pytest

from relam_jax.report.readme import PAGES, ROOT, tables, with_tables


def test_tables_are_those_of_the_results(tmp_path):
    """(The one of speed is not compared: `make bench` measures it anew on any machine.)"""
    found = tables(ROOT / "results")
    for page in (ROOT / "README.md", ROOT / "docs/results.md"):
        text = page.read_text()
        for name in set(PAGES[page.name]) - {"speed"}:
            assert f"<!-- {name} -->\n{found[name]}<!-- end -->" in text, "stale: run `make tables`"
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="has no block `<!-- success -->`"):
        with_tables(tmp_path / "README.md", found)
