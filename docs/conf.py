"""Settings of the site that `make docs` builds with Sphinx.

The source folder is the top of the repository, so that links from the pages to the results, the
README and files of code are checked, too. Nothing is read from a network.
"""

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
VERSION = re.compile(r'__version__ = "(.*)"')

project = "gotd"
author = "The gotd authors"
copyright = author  # noqa: A001 - the name that Sphinx reads
release = VERSION.findall((TOP / "src/gotd/_version.py").read_text("utf-8"))[0]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["README.md", "docs/**.md", "results/**.md"]
exclude_patterns = ["build", "artifacts", "src", "tests", ".*", "**/__pycache__"]
suppress_warnings = [
    "myst.header",  # generated tables skip a level of headings
    "misc.highlighting_failure",  # blocks with … for what a user fills in
]

html_theme = "furo"
html_title = f"gotd {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
smartquotes = False  # options begin with two dashes

# Pages -------------------------------------------------------------------------------
# Anchors of headings are those of the repository's host, which tests/experiments use, too.
myst_heading_anchors = 6
myst_enable_extensions = ["attrs_block"]

# Notebooks: each is run when the site is built, and an error ends the build. -----------
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_render_markdown_format = "myst"

# Reference --------------------------------------------------------------------------
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "py:obj"  # names in docstrings stand between single backticks
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
