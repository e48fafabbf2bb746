"""The files of a release agree on versions, authors and the commands that templates name."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tokenshift.recipes.command_line.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_one_version() -> None:
    """pyproject.toml has it; the installed package tells it, and the two files that repeat it for people agree."""
    assert version("tokenshift") == PROJECT["version"] == CITATION["version"]
    newest = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1].splitlines()[0]
    assert newest.split()[0] == PROJECT["version"]


def test_the_citation_names_the_model_cards_authors() -> None:
    card = (ROOT / "trainer" / "grpo.py").read_text(encoding="utf-8")
    given = card.split("author    = {", 1)[1].split("},")[0]
    authors = [" ".join(name.split()) for name in given.split(" and")]
    paper = CITATION["preferred-citation"]
    assert authors == [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert len(authors) == 9
    assert paper["title"] in card
    assert CITATION["license"] == PROJECT["license"]


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda file: file.name
)
def test_issue_templates_ask_for_commands_that_there_are(file: Path) -> None:
    template = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.name == "config.yml":
        assert template == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= template.keys()
    identifiers = [part["id"] for part in template["body"]]
    assert len(set(identifiers)) == len(identifiers)
    labels = [part["attributes"]["label"] for part in template["body"]]
    for label in labels:
        for word in label.split("`tokenshift ")[1:]:
            assert word.split()[0].strip("`") in COMMANDS
