"""How Sphinx builds the guide: `make docs`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
# autodoc imports TensorFlow, which is not to talk about CPUs.
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}

project = "Lockstep"
author = "The authors of Lockstep"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "docs._ext.columns",
    "docs._ext.guide_plots",
    "docs._ext.region",
    "docs._ext.gallery_pages",
    "docs._ext.mistake_pages",
    "docs._ext.mistake_links",
    "docs._ext.optimizer_pages",
    "docs._ext.reference_pages",
    "docs._ext.plain_docstrings",
    "docs._ext.porting_tables",
    "docs._ext.side_bar",
]
exclude_patterns = ["_build", "requirements*"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
nitpicky = True
# These are documented elsewhere, and a build reads nothing from there.
nitpick_ignore_regex = [
    (r"py:.*", r"(_?pytest|jax|keras|numpy|optax|tensorflow|torch)\..*"),
    (r"py:.*", r"(collections|decimal|fractions|os|pathlib|traceback|typing)\..*"),
    (r"py:.*", r"(list\[)?(dict|tuple)\[.*"),
    # What each folder reads of a problem, which is nothing to import.
    (r"py:class", r"\w+_impl\.problem\.Problem"),
    # Names of types that are no classes.
    (r"py:class", r"Array|ArrayTree|Number|Port|State|Theta"),
]
autodoc_member_order = "bysource"
add_module_names = False
python_maximum_signature_line_length = 60
html_theme = "furo"
html_title = "Lockstep"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_js_files = [("guide.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
# The same highlighting is legible on the light and on the dark page.
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
