"""What an installation gets: bounds on dependencies, the lock it is made from, and what travels in the wheel."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = {
    match["name"].lower().replace("_", "-"): match["version"]
    for match in re.finditer(
        r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)", (ROOT / "requirements.lock").read_text(), re.M
    )
}
NEEDED = [
    *PROJECT["dependencies"],
    *(line for e in ("server", "test", "dev") for line in PROJECT["optional-dependencies"][e]),
]


@pytest.mark.parametrize("line", sorted(set(NEEDED)))
def test_the_lock_lies_within_the_bounds(line: str) -> None:
    needed = Requirement(line)
    version = LOCK.get(needed.name.lower().replace("_", "-"))
    assert version is not None, f"requirements.lock lacks {needed.name}; renew it with `make lock`"
    assert needed.specifier.contains(version), f"requirements.lock has {needed.name}=={version}, pyproject {line}"


@pytest.mark.parametrize("name", ["jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers"])
def test_no_release_that_was_never_tried_is_taken(name: str) -> None:
    """The next minor release changes interfaces; transformers keeps its own within a major one."""
    bounds = next(Requirement(line) for line in PROJECT["dependencies"] if Requirement(line).name == name)
    major, minor = Version(LOCK[name]).release[:2]
    following = (
        f"{major + 1}.0" if name == "transformers" else f"{major}.{minor + 1}" if major == 0 else f"{major + 1}.0"
    )
    assert bounds.specifier.contains(LOCK[name]) and not bounds.specifier.contains(following), str(bounds)
    for extra in PROJECT["optional-dependencies"].values():
        assert all(bounds.specifier == Requirement(line).specifier for line in extra if re.match(rf"{name}\[", line))


def test_both_commands_of_the_readme_install_from_the_lock() -> None:
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line and "-e" in line]
    assert len(lines) >= 2 and all("-c requirements.lock" in line for line in lines)
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_configs_of_the_package_are_the_folder_of_the_checkout() -> None:
    assert (ROOT / "fgrpo_jax/configs").resolve() == ROOT / "configs"
