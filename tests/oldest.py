"""Print every lower bound of pyproject.toml as an exact version: what ``make oldest`` installs.

python tests/oldest.py > constraints.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

BOUND = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(\[[^]]*\])?>=(?P<version>[0-9][0-9.]*)")


def lower_bounds(text: str) -> dict[str, str]:
    """
    Return the lowest version of each package that a pyproject.toml allows, by its name.

    Examples
    --------
    >>> lower_bounds('[project]\\ndependencies = ["numpy>=1.26", "dask[dataframe]>=2024.8,<3000"]')
    {'numpy': '1.26', 'dask': '2024.8'}
    """
    project = tomllib.loads(text)
    named = list(project["project"]["dependencies"])
    for extra in project["project"].get("optional-dependencies", {}).values():
        named += extra
    for group in project.get("dependency-groups", {}).values():
        named += [one for one in group if isinstance(one, str)]  # a group may name another, which comes by itself
    return {found["name"]: found["version"] for one in named if (found := BOUND.match(one))}


if __name__ == "__main__":
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    for name, version in lower_bounds(pyproject.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
