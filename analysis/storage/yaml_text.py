"""YAML that people write, read within bounds: a file of a hundred bytes can stand for more values than fit in memory.

Aliases count as all that they stand for, so that whatever walks through a config afterwards ends at once.
"""

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MOST_CHARACTERS = 2**18
"""Characters of the longest text that is read."""

MOST_VALUES = 5_000
"""Names and values in a text, those of an alias each time that it stands there."""

MOST_LEVELS = 100
"""Lists and mappings within one another."""


class UnreadableYamlError(ValueError):
    """A text is not YAML, or out of bounds; the message is what to say of the text, such as `is not YAML: ...`."""


class BeyondBoundsError(ConstructorError):
    """A text is out of bounds; `problem` is what to say of it."""


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which ends with `BeyondBoundsError` where a text is out of bounds.

    Args:
        text: the YAML.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise BeyondBoundsError(problem=f"has more than {MOST_CHARACTERS:,} characters; write fewer")
        super().__init__(text)
        self._values = self._level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._values += 1
        self._level += 1
        self._check(self._values, self._level, self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            self._measure(node, {})
        return node

    def _measure(self, node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
        """The values and levels of a node; an alias leads to a node that was measured before."""
        if id(node) in known:
            measured = known[id(node)]
            if measured is None:
                raise BeyondBoundsError(
                    problem="has a value that contains itself; take out the alias", problem_mark=node.start_mark
                )
            return measured
        known[id(node)] = None
        values, levels = 1, 1
        if not isinstance(node, yaml.ScalarNode):
            for entry in node.value:
                for part in entry if isinstance(entry, tuple) else (entry,):
                    inner_values, inner_levels = self._measure(part, known)
                    values, levels = values + inner_values, max(levels, inner_levels + 1)
                    self._check(values, levels, node.start_mark)
        known[id(node)] = values, levels
        return values, levels

    @staticmethod
    def _check(values: int, levels: int, mark: Any) -> None:
        if values > MOST_VALUES:
            problem = f"has more than {MOST_VALUES:,} values, where each alias counts as all that it stands for"
            raise BeyondBoundsError(problem=f"{problem}; write fewer", problem_mark=mark)
        if levels > MOST_LEVELS:
            problem = f"is nested too deeply, in more than {MOST_LEVELS} levels; write it with fewer"
            raise BeyondBoundsError(problem=problem, problem_mark=mark)


def parse_yaml(text: str) -> Any:
    """Parse a text in YAML, of which JSON is a part.

    Raises:
        UnreadableYamlError: if it is not YAML, or out of bounds.
    """
    try:
        return yaml.load(text, BoundedLoader)  # a safe loader
    except BeyondBoundsError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise UnreadableYamlError(f"{error.problem}{where}.") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # a date in the month 13, a number of 5,000 digits, !!bool perhaps, ... raise other errors than YAML's
        raise UnreadableYamlError(f"is not YAML: {' '.join(str(error).split())}") from error


def read_yaml(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        UnreadableYamlError: if it is not YAML, is out of bounds, or cannot be opened.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(MOST_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise UnreadableYamlError(f"is not YAML: it is no text in UTF-8 ({error}).") from error
    except OSError as error:
        raise UnreadableYamlError(f"cannot be read: {error.strerror}.") from error
    return parse_yaml(text)
