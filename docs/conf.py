"""Settings of Sphinx: `uv run --group docs sphinx-build -W -n docs docs/build`. Nothing is loaded from other hosts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tools"))

project = "chopmix"
html_title = "chopmix"
copyright = "the authors of chopmix"
extensions = ["myst_parser", "drawings"]
exclude_patterns = ["build"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["chopmix.css"]
html_show_sphinx = False
html_copy_source = False
