"""A parser whose errors are one line, and dataclasses filled from the command line over a config file."""

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from transformers import TrainingArguments
from trl import TrlParser


class OneLineErrors:
    """Makes a parser name a wrong argument in one line, instead of behind hundreds of lines of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with the message."""
        raise ValueError(message)


class OneLineParser(OneLineErrors, TrlParser):
    """[`~trl.TrlParser`] that names a wrong argument in one line."""


def parse_into(
    types: tuple[Any, ...], arguments: list[str] | None = None, *, default: Path | None = None, unless: Any = ()
) -> Any:
    """Instances of dataclasses, from the command line over `--config`.

    Args:
        types: the dataclasses.
        arguments: words of the command line; `sys.argv`'s when None.
        default: config file of a command line that has none of `unless`.
        unless: options.

    Raises:
        ValueError: for an unknown or senseless argument or config file.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    joined = next((i for i, word in enumerate(arguments) if word.startswith("--config=")), None)
    if joined is not None:
        arguments[joined : joined + 1] = arguments[joined].split("=", 1)
    if default is not None and not {word.split("=", 1)[0] for word in arguments} & set(unless):
        arguments = ["--config", str(default), *arguments]
    parser = OneLineParser(types, allow_abbrev=False)
    if not torch.accelerator.is_available():
        if any(issubclass(each, TrainingArguments) for each in types):
            # Otherwise several processes would each believe to be alone, and bf16 would be the default.
            parser.set_defaults(use_cpu=True, bf16=False)
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where installed, would warn of it
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings} | {"config", "env"}
    _refuse_unknown([word[2:].split("=", 1)[0] for word in arguments if word.startswith("--")], known, "--")
    if "--config" in arguments:
        place = arguments.index("--config") + 1
        _refuse_unknown(_config_keys(arguments[place] if place < len(arguments) else ""), known, "the config's ")
    return parser.parse_args_and_config(arguments)


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; those that are None are left out."""
    found = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            found += [f"--{name}", *(str(each).lower() if isinstance(each, bool) else str(each) for each in values)]
    return found


def _config_keys(file: str) -> list[str]:
    if not Path(file).is_file():
        raise ValueError(f"--config {file!r} is not a file; recipes/configs/ holds some to start from.")
    try:
        config = yaml.safe_load(Path(file).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {file!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"--config {file!r} must hold a mapping of arguments to values.")
    return [str(key) for key in config]


def _refuse_unknown(names: list[str], known: set[str], prefix: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "--help lists them."
            raise ValueError(f"{prefix}{name} is no argument; {hint}")
