"""Sphinx's settings: pages in Markdown, docstrings in numpydoc, examples run at build."""

import os

import fastbp

project = "fastbp"
author = "the fastbp developers"
copyright = f"2026, {author}"
release = version = fastbp.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

highlight_language = "none"  # where a block of a page does not say

suppress_warnings = ["config.cache"]  # the gallery's settings have a function in them

html_theme = "furo"
html_title = "fastbp"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

_STORY = (
    *("house_prices", "xor", "digits", "gradients", "optimizers", "overfitting"),
    *("beyond", "seeds", "tabular", "out_of_core", "cluster_search"),
)


class AsTold:
    """Sorts the examples by ``_STORY``; sphinx-gallery makes one a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        """The place of an example."""
        return _STORY.index(name.removesuffix(".py"))


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "within_subsection_order": AsTold,
    "reset_argv": lambda _conf, _vars: ["--short"] if os.environ.get("SHORT") else [],
    "show_memory": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
}
