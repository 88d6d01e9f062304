"""Configuration of the documentation, for sphinx-build."""

import os
import re
import urllib.request
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
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network
    "sphinx_copybutton",
    "sphinx_design",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "examples"]
templates_path = ["_templates"]

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings state the types, in words
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

copybutton_prompt_text = r">>> |\.\.\. ?|\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True  # what a block prints is not copied
copybutton_exclude = ".linenos, .gp, .go"

DOCUMENTATION = {
    "python": "https://docs.python.org/3",
    "numpy": "https://numpy.org/doc/stable",
    "scipy": "https://docs.scipy.org/doc/scipy",
    "sklearn": "https://scikit-learn.org/stable",
    "pandas": "https://pandas.pydata.org/docs",
}


def is_online(address):
    """Tell whether an address answers soon."""
    try:
        with urllib.request.urlopen(address, timeout=3):
            return True
    except OSError:
        return False


# Links to other packages are optional: without a network they are plain text.
intersphinx_mapping = {
    name: (address, None)
    for name, address in DOCUMENTATION.items()
    if is_online(f"{address}/objects.inv")
}

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
}
# Contributing says how the site lists the released versions at this address.
if "DOC_SWITCHER_URL" in os.environ:
    html_theme_options |= {
        "navbar_start": ["navbar-logo", "version-switcher"],
        "switcher": {
            "json_url": os.environ["DOC_SWITCHER_URL"],
            "version_match": release,
        },
        "check_switcher": False,
    }
html_sidebars = {
    page: [] for page in ("index", "install", "how_do_i", "changes", "contributing")
}


def plain_references(app, what, name, obj, options, lines):
    """Replace references in docstrings inherited from scikit-learn.

    Their targets are in scikit-learn's documentation: an example becomes a link, and of
    anything else the text is kept.
    """
    if not (getattr(obj, "__module__", None) or "").startswith("sklearn."):
        return
    text = "\n".join(lines)
    example = r":ref:`sphx_glr_auto_examples_(\w+?)_(plot_\w+)\.py`"
    examples = f"{DOCUMENTATION['sklearn']}/auto_examples"
    text = re.sub(example, rf"`\2 <{examples}/\1/\2.html>`__", text)
    reference = r":(?:ref|term|doc):`~?([^`<]+?)(?:\s*<[^`>]+>)?`"
    lines[:] = re.sub(reference, r"\1", text).split("\n")


def setup(app):
    """Register the hooks of this file with Sphinx."""
    app.connect("autodoc-process-docstring", plain_references)
