"""Print the lowest versions that pyproject.toml allows, one `name==version` a line, for `make lowest`.

Direct requirements stand at their lower bounds; pip chooses the newest of what they need in turn. A bound
that pip cannot satisfy, or with which the demo or a test fails, is not true: raise it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = (
    "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "jsonschema", "mambapy", "scikit-image",
    "scikit-posthocs", "SimpleITK", "statsmodels", "submitit", "medpy", "hatchling",
)  # fmt: skip
"""What the tests import themselves, oracles included; pip takes versions of them that go with the bounds."""


def lowest(requirements: list[str]) -> list[str]:
    """`name==bound` for each `name>=bound`; anything else is not how a dependency is written here."""
    pins = []
    for text in requirements:
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", text.replace(" ", ""))
        if found is None:
            raise ValueError(f"{text!r} has no plain lower bound")
        pins.append(f"{found[1]}=={found[2]}")
    return pins


def main() -> None:
    """Print the pins of the base dependencies, then the test tools."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.write("\n".join([*lowest(project["dependencies"]), *TOOLS]) + "\n")


if __name__ == "__main__":
    main()
