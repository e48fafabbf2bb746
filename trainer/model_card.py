"""Model cards that say what a model really is: TRL's text, with its gaps closed and a section on how it was made."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.whole_file import write_whole

CARD_FILE = "README.md"

NO_BASE = "[None](https://huggingface.co/None)"
"""TRL's words for a base model that is no hub name."""

NO_HUB_NAME = 'model="None"'
"""TRL's words for a model that is not pushed."""


NO_LICENCE = "licence: license\n"
"""TRL's place for a licence, which nobody has named."""


def public_name(name: str) -> str:
    """A model's name as others may read it: a hub name or a short one as it is, of a path the last folder."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 else name


def complete_card(file: Path, base: str | None, sections: str = "") -> None:
    """Name the base model in a card that TRL wrote, and add sections.

    Args:
        file: the card.
        base: the name or folder of the base model, if it is known.
        sections: Markdown that is added at the end.
    """
    text = file.read_text(encoding="utf-8")
    text = text.replace(NO_BASE, f"`{public_name(base)}`" if base else "a model that was given by its weights")
    text = text.replace(NO_HUB_NAME, 'model="."')  # the card's own folder
    text = text.replace(NO_LICENCE, "")
    write_whole(file, text.rstrip("\n") + "\n" + sections)


def made_section(facts: Mapping[str, Any]) -> str:
    """A Markdown section with a table of how a model was made.

    Args:
        facts: what -> its value; None is left out.
    """
    rows = [(name, str(value)) for name, value in facts.items() if value is not None]
    return hide_in_text(f"\n## How it was made\n\n{markdown_table(('', ''), rows)}")
