"""A parser whose errors are one line, and dataclasses filled from the command line over a config file."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from transformers import HfArgumentParser, TrainingArguments
from trl import TrlParser

from tokenshift.analysis.secrets import HIDDEN, hide_in_words
from tokenshift.recipes.command_line.config_files import RECORD, read_config, with_config_file
from tokenshift.recipes.command_line.early_check import option_names, refuse_unknown
from tokenshift.recipes.command_line.given_options import (
    WrittenOptions,
    given_names,
    mark_given,
    mark_written,
    reasons_without_effect,
    refuse_without_effect,
)

Arguments = TypeVar("Arguments")


class OneLineErrors:
    """Makes a parser name a wrong argument in one line, instead of behind hundreds of lines of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with the message."""
        raise ValueError(message)


class OneLineParser(OneLineErrors, TrlParser):
    """[`~trl.TrlParser`] that names a wrong argument in one line, and reads a run's record as a config.

    Attributes:
        values: The value of every option as it was read last, before a dataclass derives anything from it.
    """

    values: Mapping[str, Any] = {}

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse as argparse does, and remember the values."""
        namespace, rest = super().parse_known_args(*args, **kwargs)
        self.values = dict(vars(namespace))
        return namespace, rest

    def set_defaults_with_config(self, **kwargs: Any) -> Any:
        """Set defaults as TRL does, without the facts of a run's record."""
        kwargs.pop(RECORD, None)
        return super().set_defaults_with_config(**kwargs)


class _OwnConfigParser(OneLineErrors, HfArgumentParser):
    """TRL's parser would keep `--config` to itself."""


def parse_own_config(kind: type[Arguments], arguments: list[str] | None) -> Arguments:
    """An instance of a dataclass whose `config` is a file that the recipe reads itself.

    Args:
        kind: The dataclass.
        arguments: Words of the command line; `sys.argv`'s when None.

    Raises:
        ValueError: For an unknown or senseless argument.
    """
    kinds: Any = (kind,)
    args, left = _OwnConfigParser(kinds, allow_abbrev=False).parse_args_into_dataclasses(
        arguments, return_remaining_strings=True, look_for_args_file=False
    )
    if left:
        raise ValueError(f"{left[0]} is no argument; --help lists them.")
    parsed: Arguments = args
    words = sys.argv[1:] if arguments is None else arguments
    mark_written([parsed], WrittenOptions({}, hide_in_words(list(words))))
    return parsed


def parse_into(
    types: tuple[Any, ...],
    arguments: list[str] | None = None,
    *,
    default: Path | None = None,
    unless: Any = (),
    check_effect: bool = True,
) -> Any:
    """Instances of dataclasses, from the command line over `--config`.

    Args:
        types: The dataclasses.
        arguments: Words of the command line; `sys.argv`'s when None.
        default: Config file of a command line that has none of the options `unless`.
        unless: Options, with their hyphens.
        check_effect: Whether given options that would have no effect are refused.

    Raises:
        ValueError: For an unknown or senseless argument or config file, or an option that would have no effect.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = hide_in_words(arguments)  # the secrets among them are remembered
    sys.argv[1:] = hide_in_words(sys.argv[1:])  # trackers record it
    if default is not None and not {word.split("=", 1)[0] for word in arguments} & set(unless):
        arguments = ["--config", str(default), *arguments]
    parser = OneLineParser(types, allow_abbrev=False)
    if not torch.accelerator.is_available():
        if any(issubclass(argument_class, TrainingArguments) for argument_class in types):
            # Otherwise several processes would each believe to be alone, and bf16 would be the default.
            parser.set_defaults(use_cpu=True, bf16=False)
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where installed, would warn of it
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings} | {"config", "env"}
    refuse_unknown(option_names(arguments), known, "--")
    arguments = with_config_file(arguments)
    config: dict[str, Any] = {}
    if "--config" in arguments:
        config = read_config(Path(arguments[arguments.index("--config") + 1]))
        refuse_unknown(config, known, "the config's ")
        _refuse_left_out(config, arguments)
    # an option that is true by default has a second one, --no_NAME, which comes after it
    defaults = {action.dest: action.default for action in reversed(parser._actions)}
    options = {option: action.dest for action in parser._actions for option in action.option_strings}
    parsed = parser.parse_args_and_config(arguments)
    reasons = reasons_without_effect(parsed) if check_effect else {}
    overridden = set[str]()
    if idle := (config.keys() & reasons.keys()) - set(option_names(arguments)):
        overridden = _overridden(parser, arguments, idle)
        # DeepSpeed's config is that of the TrainingArguments that were made last: ZeRO-3 loads models by it
        parsed = parser.parse_args_and_config(arguments)
    values = dict(parser.values)
    mark_given(parsed, given_names(arguments, options, config, defaults))
    for instance in parsed:
        for name in overridden:
            if hasattr(instance, name):
                setattr(instance, name, defaults[name])
                values[name] = defaults[name]
    refuse_without_effect(parsed, {name: reason for name, reason in reasons.items() if name not in overridden})
    mark_written(parsed, WrittenOptions(values, words, config.get("env") or {}))
    return parsed


def _refuse_left_out(config: Mapping[str, Any], arguments: list[str]) -> None:
    """Refuse a setting whose value a record hides.

    Raises:
        ValueError: If there is one, which the command line does not set either.
    """
    for name, value in config.items():
        if HIDDEN in str(value) and name not in option_names(arguments):
            raise ValueError(f"the config's {name} has {HIDDEN} in place of a secret; set it by --{name} VALUE.")


def _overridden(parser: TrlParser, arguments: list[str], idle: set[str]) -> set[str]:
    """The config's settings that have no effect because of what the command line sets over the config.

    A config of vLLM's settings, for example, stays usable with `--use_vllm false`.

    Args:
        parser: The parser, of which other values are left.
        arguments: The words of the command line.
        idle: The config's settings that have no effect with these words.
    """
    index = arguments.index("--config")
    try:
        alone = parser.parse_args_and_config(arguments[index : index + 2])
    except ValueError:  # the config is incomplete without the command line
        return idle
    return idle - reasons_without_effect(alone).keys()


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; those that are None are left out."""
    words = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(_word, values)]
    return words


def _word(value: Any) -> str:
    """A setting's value as a word of a command line: JSON where that is what an argument reads."""
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)
