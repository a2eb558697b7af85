"""How Sphinx builds the guide: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

project = "Lockstep"
author = "The authors of Lockstep"
# Pages of their own, and what they are made of.
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "docs._ext.columns",
    "docs._ext.guide_plots",
    "docs._ext.region",
    "docs._ext.mistake_pages",
    "docs._ext.mistake_links",
    "docs._ext.optimizer_pages",
]
exclude_patterns = ["_build", "requirements*"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
nitpicky = True
html_theme = "furo"
html_title = "Lockstep"
html_static_path = ["_static"]
html_copy_source = False
html_show_sphinx = False
# The same highlighting is legible on the light and on the dark page.
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
