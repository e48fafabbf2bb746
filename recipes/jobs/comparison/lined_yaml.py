"""A YAML file whose mistakes are named with their line."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Given:
    """A value with the line on which its name stands."""

    value: Any
    line: int
    node: Any = field(repr=False)


class LinedYaml:
    """Reads a file, and knows the lines of what it read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            self.root = self._loader.get_single_node()
            self._refuse_duplicates(self.root, set())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.wrong(mark.line + 1 if mark else 1, f"this is not YAML: {error.problem}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise self.wrong(1, f"this is not YAML: {error}.") from error

    def wrong(self, line: int, text: object) -> ValueError:
        """A mistake, ready to be raised."""
        return ValueError(f"{self.path}:{line}: {' '.join(str(text).split())}")

    def _refuse_duplicates(self, node: Any, done: set[int]) -> None:
        if isinstance(node, yaml.ScalarNode) or node is None or id(node) in done:
            return
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for each in node.value:
                self._refuse_duplicates(each, done)
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise self.wrong(line, f"{name!r} is there twice, first on line {seen[name]}; rename or drop one.")
            seen[name] = line
            self._refuse_duplicates(value, done)

    def mapping(self, node: Any, what: str, line: int) -> dict[str, Given]:
        """A mapping's values by name; none of it for an empty node.

        Raises:
            ValueError: if it is something else.
        """
        if node is None or (isinstance(node, yaml.ScalarNode) and self.value(node) is None):
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(line, f"{what} must be a mapping of names to values, not {self.value(node)!r}.")
        try:
            self._loader.flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            raise self.wrong(line, f"{error.problem}.") from error
        return {str(key.value): Given(self.value(value), key.start_mark.line + 1, value) for key, value in node.value}

    def value(self, node: Any) -> Any:
        """What a node stands for."""
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.MarkedYAMLError, ValueError) as error:  # a date or number of an impossible form
            raise self.wrong(node.start_mark.line + 1, f"{getattr(error, 'problem', error)}.") from error

    def file(self, given: Given, what: str, shipped: Path) -> Path:
        """A file that a value names: by its path, seen from here or from this file, or by its name among the shipped.

        Raises:
            ValueError: if there is none.
        """
        name = str(given.value)
        bare = Path(name).expanduser()
        places = [bare, self.path.parent / bare, shipped / bare, shipped / f"{name}.yaml"]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            stems = sorted(path.stem for path in shipped.glob("*.yaml") if not path.stem.startswith("compare_"))
            raise self.wrong(given.line, f"{what}={name!r} is neither a file nor one of {', '.join(stems)}.")
        return found

    def refuse_unknown(
        self, names: Mapping[str, Given], known: Iterable[str], what: str, listed: str | None = None
    ) -> None:
        """Raise for the first of these names that is not known.

        Args:
            names: as they were read.
            known: all that may be there.
            what: they are, for the message.
            listed: how to see those that are known, where they are too many to name.

        Raises:
            ValueError: if there is one.
        """
        known = list(known)
        for name, given in names.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                every = listed or f"known are {', '.join(sorted(known))}."
                hint = f"did you mean {close[0]}?" if close else every
                raise self.wrong(given.line, f"{what} {name!r} is not known; {hint}")

    def blame(self, error: Exception, names: Mapping[str, Given], line: int, prefix: str = "") -> ValueError:
        """An error with the line of the first of these names that it speaks of."""
        text = str(error)
        places = {
            match.start(): each.line
            for name, each in names.items()
            if (match := re.search(rf"\b{re.escape(name)}\b", text))
        }
        return self.wrong(places[min(places)] if places else line, prefix + text)
