"""Configuration of the documentation, for sphinx-build."""

import re
from pathlib import Path

from sphinx_gallery.sorting import ExplicitOrder

import sklearn_mfgd

project = "sklearn_mfgd"
author = "the sklearn_mfgd developers"
copyright = f"2026, {author}"
release = version = sklearn_mfgd.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "examples"]
templates_path = ["_templates"]

autosummary_generate = True
numpydoc_show_class_members = False  # the class template lists them

# examples/index.rst has the sections of the gallery: thumbnails are in its order.
examples = Path(__file__).parent.resolve() / "examples"
in_order = re.findall(
    r"examples/(\w+\.py)", (examples / "index.rst").read_text("utf-8")
)

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "doc_module": ("sklearn_mfgd",),
    "backreferences_dir": "generated/backreferences",
    "minigallery_sort_order": ExplicitOrder(
        [*(str(examples / name) for name in in_order), "*"]
    ),
    "copyfile_regex": r"index\.rst",  # not one of its own
    "parallel": 2,
    "download_all_examples": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in (
        "install",
        "user_guide",
        "nothing_to_tune",
        "rows_in_time",
        "which_loss",
        "performance",
        "choosing_an_imputer",
        "coming_from",
        "glossary",
        "contributing",
        "changes",
    )
}


def plain_references(app, what, name, obj, options, lines):
    """Keep only the text of references in docstrings inherited from scikit-learn.

    Their targets are in scikit-learn's documentation, not in this one.
    """
    if (getattr(obj, "__module__", None) or "").startswith("sklearn."):
        reference = r":(?:ref|term|doc):`~?([^`<]+?)(?:\s*<[^`>]+>)?`"
        lines[:] = re.sub(reference, r"\1", "\n".join(lines)).split("\n")


def setup(app):
    """Register the hooks of this file with Sphinx."""
    app.connect("autodoc-process-docstring", plain_references)
