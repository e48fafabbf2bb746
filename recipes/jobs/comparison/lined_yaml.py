"""A YAML file that knows the line of each of its settings, so that mistakes are named with their line."""

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.storage.yaml_text import MOST_CHARACTERS, BeyondBoundsError, BoundedLoader

Position = tuple[str | int, ...]
"""The names, and the indices of lists, that lead to a setting."""

_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = 200

_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"


def short_repr(value: object) -> str:
    """A value as messages show it: nested and long ones are cut."""
    return _REPR.repr(value)


class _Loader(BoundedLoader):
    """Keeps keys as they are written (a variant may be called 50 or yes), refuses keys that are there twice, and names
    the line of a value that cannot be."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in lines:
                    problem = f"{key.value!r} is there twice, first on line {lines[key.value]}; rename or drop one"
                    raise ConstructorError(problem=problem, problem_mark=key.start_mark)
                key.tag, lines[key.value] = _TEXT, key.start_mark.line + 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # such as a date in the month 13, or a number of 5,000 digits
            raise ConstructorError(problem=str(error), problem_mark=node.start_mark) from error
        except (ArithmeticError, LookupError, AttributeError) as error:  # such as !!bool perhaps
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(problem=f"{node.value!r} is no {kind}", problem_mark=node.start_mark) from error


class LinedYaml:
    """Reads a file.

    Args:
        path: The file.

    Attributes:
        data: What the file says; None for an empty file.

    Raises:
        ValueError: if the file is not YAML or out of bounds, with the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root: Any = None
        try:
            with path.open(encoding="utf-8") as file:
                loader = _Loader(file.read(MOST_CHARACTERS + 1))
            self._root = loader.get_single_node()
            self.data = None if self._root is None else loader.construct_object(self._root, deep=True)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            prefix = "this is not YAML: "
            if isinstance(error, ConstructorError):
                prefix = "the file " if isinstance(error, BeyondBoundsError) else ""
            raise self._wrong_line(mark.line + 1 if mark else 1, f"{prefix}{error.problem}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise self._wrong_line(1, f"this is not YAML: {error}.") from error
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}.") from error

    def _wrong_line(self, line: int, text: object) -> ValueError:
        return ValueError(f"{self.path}:{line}: {' '.join(str(text).split())}")

    def line(self, position: Position) -> int:
        """The line of a setting's name, or of the nearest setting above it that the file has."""
        node, line = self._root, 1
        for name in position:
            if isinstance(node, yaml.MappingNode):
                entries = [(key, value) for key, value in node.value if key.value == name]
            elif isinstance(node, yaml.SequenceNode) and isinstance(name, int):
                entries = [(value, value) for value in node.value[name : name + 1]]
            else:
                entries = []
            if not entries:
                break
            key, node = entries[-1]  # behind those that a merge key brings
            line = key.start_mark.line + 1
        return line

    def wrong(self, position: Position, text: object) -> ValueError:
        """A mistake in a setting, in one line that begins with the file and the line, ready to be raised."""
        return self._wrong_line(self.line(position), text)

    def blame(
        self, error: Exception, settings: Mapping[str, Position], otherwise: Position, prefix: str
    ) -> ValueError:
        """An error that a later check raised, at the first setting that its text speaks of.

        Args:
            error: The error.
            settings: Positions by the names that the text may have for them.
            otherwise: The position if the text has none of these names.
            prefix: What stands before the text.
        """
        text = str(error)
        spoken_of = {
            match.start(): position
            for name, position in settings.items()
            if (match := re.search(rf"\b{re.escape(name)}\b", text))
        }
        return self.wrong(spoken_of[min(spoken_of)] if spoken_of else otherwise, prefix + text)

    def file(self, position: Position, name: str, shipped: Path, pattern: str = "*") -> Path:
        """The file that a setting names.

        Args:
            position: Where the setting stands.
            name: A path, seen from the current folder or from this file's, or the name of a shipped file.
            shipped: The folder of the shipped files.
            pattern: Pattern of the shipped files that the message lists.

        Raises:
            ValueError: if there is no such file.
        """
        path = user_path(name, str(position[-1]))
        for candidate in (path, self.path.parent / path, shipped / path, shipped / f"{name}.yaml"):
            if candidate.is_file():
                return candidate
        names = sorted(file.stem for file in shipped.glob(f"{pattern}.yaml"))
        raise self.wrong(position, f"{position[-1]}={name!r} is neither a file nor one of {', '.join(names)}.")
