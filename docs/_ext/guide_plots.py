"""Draws the plots of the guide's pages before Sphinx reads them."""

from __future__ import annotations

from sphinx.application import Sphinx

from docs import guide_plots


def setup(app: Sphinx) -> dict[str, bool]:
    """Draw them at the start of a build."""
    app.connect("builder-inited", lambda app: guide_plots.make())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
