"""The project's Markdown files: their blocks of code, commands, links and headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), ROOT / "recipes" / "README.md", *(ROOT / "docs").rglob("*.md")])
"""README, the other texts of the root, recipes/README.md and docs/."""

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        document: the file.
        language: the word behind the fence.
        code: the lines.
    """

    document: Path
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.code.strip().splitlines()[0][:60]}"


def blocks(document: Path, language: str) -> list[Block]:
    """The fenced blocks of a language, in order."""
    return [
        Block(document, found[2], found[3]) for found in FENCE.finditer(document.read_text()) if found[2] == language
    ]


def commands(document: Path) -> Iterator[list[str]]:
    """The words of every command in the shell blocks of a file, without comments; continued lines are one command."""
    for block in blocks(document, "bash"):
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def prose(document: Path) -> str:
    """A file without its blocks and inline code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text()))


def links(document: Path) -> list[str]:
    """The targets of all links and images, in order."""
    return LINK.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """The names by which GitHub links to the headings of a file."""
    seen: dict[str, int] = {}
    names = set()
    for heading in HEADING.findall(FENCE.sub("", document.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen.get(name, 0)
        seen[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names
