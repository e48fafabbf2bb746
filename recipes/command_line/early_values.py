"""The arguments of a command line and its config before the slow imports: given values, and sources' defaults."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tokenshift.analysis.secrets import hide_secrets
from tokenshift.recipes.command_line.source_fields import UNKNOWN, SourceField, UnreadableSource
from tokenshift.recipes.command_line.truth_words import to_bool

CHANGED = {"report_to": "all"}
"""Values of arguments that their dataclass replaces by others, which only shows after the imports."""


class EarlyValues(SimpleNamespace):
    """The values of all arguments, as attributes; those that are not known yet raise [`UnreadableSource`]."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is UNKNOWN:
            raise UnreadableSource(f"The value of {name} is not known before the imports.")
        return value


def _value_of(field: SourceField | None, value: Any) -> Any:
    """A value as its argument will have it: a config may write a number as a text, and a list's only item alone."""
    if field is None or value is None or value is UNKNOWN:
        return value
    if not field.is_list:
        return _converted(value, field.kind)
    items = [_converted(item, field.kind) for item in (value if isinstance(value, list | tuple) else [value])]
    return UNKNOWN if UNKNOWN in items else items


def _converted(value: Any, kind: type | None) -> Any:
    if not isinstance(value, str) or kind in (None, str):
        return value
    try:
        return to_bool(value) if kind is bool else kind(value)
    except (ValueError, ArgumentTypeError):
        return UNKNOWN


@dataclass(frozen=True)
class EarlyArguments:
    """The arguments of a command.

    Attributes:
        given: Given values by argument: those of the config, and those of the command line over them.
        fields: The command's fields by name; empty where they cannot be read without imports.
        config: The config's values among the given ones.
        written: Names of the arguments that the command line itself gives.
        processes: Processes of the run; None where a launcher that is not started yet says how many.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, SourceField] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    processes: int | None = 1

    @property
    def values(self) -> EarlyValues:
        """The values of all arguments."""
        return self._with(self.given)

    def _with(self, given: Mapping[str, Any]) -> EarlyValues:
        values = {name: field.default for name, field in self.fields.items()} | dict(given)
        values |= {name: UNKNOWN for name, value in CHANGED.items() if values.get(name) == value}
        return EarlyValues(**{name: _value_of(self.fields.get(name), value) for name, value in values.items()})

    def refuse_without_effect(self, reasons_of: Callable[[EarlyValues], Mapping[str, str]]) -> None:
        """Refuse the first given argument that has no effect, by the rule of `given_options.refuse_without_effect`.

        A config's setting that only the command line leaves without effect is no mistake.

        Args:
            reasons_of: A function of all values that names arguments without effect, each with the reason and what to
                do. It may read values that are not known yet: then nothing is refused here.

        Raises:
            ValueError: If there is one.
        """
        try:
            reasons = reasons_of(self.values)
            alone = reasons_of(self._with(self.config)) if self.config else {}
        except UnreadableSource:
            return
        defaults = {name: field.default for name, field in self.fields.items()}
        changed = {name for name, value in self.config.items() if name in alone and value != defaults.get(name)}
        for name, reason in reasons.items():
            if name in self.given and (name in self.written or name in changed):
                raise ValueError(f"{name}={hide_secrets(self.given[name], name)!r} has no effect: {reason}")
