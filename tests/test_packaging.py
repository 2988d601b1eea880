"""What an installer and a reader of the metadata get to know."""

import importlib.metadata
import re
from pathlib import Path

import fastbp

ROOT = Path(__file__).parents[1]


def test_the_version_is_that_of_the_package():
    assert importlib.metadata.version("fastbp") == fastbp.__version__
    assert fastbp.__version__ not in (ROOT / "pyproject.toml").read_text()
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited is None or cited[1] == fastbp.__version__  # None: not yet released


def test_nothing_but_four_packages_is_needed():
    needed = {
        re.match(r"[\w-]+", requirement)[0]
        for requirement in importlib.metadata.requires("fastbp")
        if "extra ==" not in requirement
    }
    assert needed == {"numba", "numpy", "scikit-learn", "scipy"}


def test_metadata_tells_what_it_is():
    metadata = importlib.metadata.metadata("fastbp")
    for field in ("Summary", "Author", "License-Expression", "Requires-Python"):
        assert metadata[field], field
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# fastbp" in metadata.get_payload() or "# fastbp" in metadata["Description"]
