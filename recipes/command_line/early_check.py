"""Mistakes on a command line that show before torch and TRL are imported: unknown names, and values of a wrong kind.

The arguments' names and kinds come from their sources (`source_fields.py`), as do the names that registries and lists
hold. Where a source cannot be read, nothing is refused here: every mistake is found again after the imports.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, parse_yaml
from tokenshift.recipes.command_line.commands import COMMANDS, Command
from tokenshift.recipes.command_line.config_files import CONFIGS, config_file, read_config, with_config_file
from tokenshift.recipes.command_line.early_numbers import check_numbers
from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.command_line.source_fields import (
    UNKNOWN,
    SourceField,
    UnreadableSource,
    class_fields,
    constant,
    registered_names,
)
from tokenshift.recipes.command_line.truth_words import to_bool

SMALLEST = {
    **dict.fromkeys(
        (
            *("size", "samples", "ks", "batch_size", "batch_tokens", "max_new_tokens", "resamples", "pilot"),
            *("train_size", "eval_size", "check_steps", "probe_size", "verify_workers", "parallel"),
            *("rounds", "tokens", "hidden", "vocabulary", "vllm_tensor_parallel_size", "vllm_max_model_length"),
            *("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations", "num_iterations"),
            *("steps_per_generation", "generation_batch_size", "max_completion_length"),
            *("plan_processes", "plan_machines", "plan_gpus", "plan_prompt_tokens", "plan_completion_tokens"),
        ),
        1,
    ),
    **dict.fromkeys(("seeds", "report_responses", "probe_steps"), 0),
}
"""The smallest value of arguments that count something; it is the same in every command."""

REGISTERED = {
    "advantage_weighting": ("tokenshift.trainer.weighting", "weighting"),
    "divergence": ("tokenshift.trainer.weighting", "divergence"),
    "reward_funcs": ("tokenshift.rewards", "reward"),
    "reward_func": ("tokenshift.rewards", "reward"),
    "answer_extractor": ("tokenshift.rewards", "extractor"),
    "criteria": ("tokenshift.analysis.cross_sampling", "criterion"),
}
"""Arguments that name entries of a registry -> the package that registers the shipped ones, and their kind."""

KIND_WORDS = {"extractor": "answer extractor"}
"""Kinds that messages call otherwise than their decorators do."""

LISTED = {
    "parts": ("tokenshift.recipes.benchmark", "BENCHMARK_PARTS"),
    "directions": ("tokenshift.analysis.cross_sampling.sweep", "DIRECTIONS"),
    "engine": ("tokenshift.recipes.inputs.engines", "ENGINE_NAMES"),
    "match": ("tokenshift.analysis.cross_sampling.pilot", "MATCHES"),
    "draws": ("tokenshift.analysis.cross_sampling.intervention", "DRAWS"),
    "kinds": ("tokenshift.recipes.jobs.analysis.robustness", "TRAJECTORY_KINDS"),
    "scale": ("tokenshift.recipes.jobs.reproduction.arguments", "SCALES"),
    "loss_type": ("tokenshift.trainer.config", "KNOWN_LOSSES"),
    "measure": ("tokenshift.analysis.token_table.measure", "SHIFT_MEASURES"),
    "dtype": ("tokenshift.recipes.inputs.sampling", "DTYPES"),
    "wording": ("tokenshift.recipes.jobs.sft.wordings", "WORDINGS"),
}
"""Arguments whose values are listed in a module's constant -> the module and the constant."""


MAPPINGS = ("weighting_options", "chat_template_kwargs", "model_config_overrides")
"""Arguments that are mappings, written as JSON."""


class EarlyParser(argparse.ArgumentParser):
    """Takes the options that `transformers.HfArgumentParser` makes of the same fields; an error is a ValueError."""

    def __init__(self, fields: Iterable[SourceField]) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        for field in fields:
            self._add(field)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def options(self) -> set[str]:
        """All options, without their leading hyphens."""
        return {option.lstrip("-") for option in self._option_string_actions}

    def _add(self, field: SourceField) -> None:
        names = list(dict.fromkeys([f"--{field.name}", f"--{field.name.replace('_', '-')}", *field.aliases]))
        settings: dict[str, Any] = {"dest": field.name}
        if field.choices:
            settings |= {"choices": field.choices, "type": _chooser(field.choices)}
        elif field.kind is bool:
            settings["type"] = to_bool
            if not field.optional or field.default is not None:
                settings |= {"nargs": "?", "const": True}
        elif field.kind is not None:
            settings["type"] = field.kind
        if field.is_list:
            settings["nargs"] = "+"
        self.add_argument(*names, **settings)
        if field.kind is bool and field.default is True:
            self.add_argument(
                f"--no_{field.name}",
                f"--no-{field.name.replace('_', '-')}",
                action="store_false",
                dest=field.name,
            )


def _chooser(choices: Iterable[Any]) -> Callable[[str], Any]:
    values = {str(choice): choice for choice in choices}
    return lambda word: values.get(word, word)


def refuse_unknown(names: Iterable[str], known: Iterable[str], prefix: str) -> None:
    """Raise for the first name that is no argument.

    Args:
        names: Names that were given.
        known: All names there are.
        prefix: What stands before the name in the message.

    Raises:
        ValueError: If there is one; the message shows the nearest known name.
    """
    known = list(known)
    for name in names:
        if name not in known:
            hint = close_match(name, known) or "; --help lists them."
            raise ValueError(f"{prefix}{name} is no argument{hint}")


def option_names(words: Iterable[str]) -> list[str]:
    """Names of the options among the words of a command line."""
    return [word[2:].split("=", 1)[0] for word in words if word.startswith("--")]


def command_fields(command: Command) -> dict[str, SourceField]:
    """All fields that a command's arguments come from, by name.

    Raises:
        UnreadableSource: If a source is not found.
    """
    fields: dict[str, SourceField] = {}
    for dotted in command.arguments:
        fields |= class_fields(dotted)
    return fields


def check_words(command: Command, words: list[str]) -> EarlyArguments:
    """Look at the words of a command line, and at the config file they name, without importing anything heavy.

    Returns:
        The arguments; none where they cannot be read without imports.

    Raises:
        ValueError: For an unknown argument or config key, a config file that is not there or not YAML, and a value of
            a wrong kind or out of its range.
    """
    if not command.arguments:
        return EarlyArguments()
    try:
        fields = command_fields(command)
    except UnreadableSource:
        return EarlyArguments()
    parser = EarlyParser(fields.values())
    known = parser.options() | ({"config", "env"} if command.config_holds_arguments else set())
    refuse_unknown(option_names(words), known, "--")
    if command.config_holds_arguments:
        if command.default_config and not {word.split("=", 1)[0] for word in words} & set(command.default_unless):
            words = ["--config", str(CONFIGS / command.default_config), *words]
        words = with_config_file(words)
    settings: dict[str, Any] = {}
    if "--config" in words:
        index = words.index("--config")
        file = config_file(words[index + 1] if index + 1 < len(words) else "", command.configs or "*")
        config = read_config(file, next((name for name, other in COMMANDS.items() if other is command), None))
        if command.config_holds_arguments:
            refuse_unknown(config, known, "the config's ")
            for name, value in config.items():
                if name in fields:
                    _check_value(fields[name], value, "the config's ")
            settings = {name: value for name, value in config.items() if name in fields}
            del words[index : index + 2]
    parsed, unused = parser.parse_known_args(words)
    if unused:
        raise ValueError(f"{unused[0]!r} belongs to no argument; an argument is given as --name value.")
    written = {name: value for name, value in vars(parsed).items() if value is not None}
    values = settings | written
    _check_meanings(values, fields)
    return EarlyArguments(values, fields, settings, frozenset(written))


def check_values(values: Mapping[str, Any], fields: Mapping[str, SourceField]) -> None:
    """Look at the values of arguments as a config file has them.

    Args:
        values: Values by argument.
        fields: The command's fields by name, of which every argument is one.

    Raises:
        ValueError: For a value of a wrong kind or out of its range.
    """
    for name, value in values.items():
        _check_value(fields[name], value)
    _check_meanings(values, fields)


def _check_meanings(values: Mapping[str, Any], fields: Mapping[str, SourceField]) -> None:
    _check_smallest(values)
    check_numbers(values, fields)
    _check_texts(values)
    _check_known(values)


def _check_texts(values: Mapping[str, Any]) -> None:
    """Raise for the first text that is no mapping, or no template, where it has to be one."""
    for name in MAPPINGS:
        value = values.get(name)
        if isinstance(value, str):
            try:
                read = parse_yaml(value)
            except UnreadableYamlError:
                read = None
            if not isinstance(read, dict):
                raise ValueError(f"{name}={value!r} is no mapping of names to values in JSON, such as '{{\"a\": 1}}'.")
    template = values.get("prompt_template")
    if isinstance(template, str) and "{prompt}" not in template:
        raise ValueError(f"prompt_template={template!r} has no {{prompt}} in it.")


def _check_smallest(values: Mapping[str, Any]) -> None:
    """Raise for the first number that is too small."""
    for name, smallest in SMALLEST.items():
        for value in _items(values.get(name)):
            if isinstance(value, int) and value < smallest:
                raise ValueError(f"{name}={value} must be at least {smallest}.")


def _check_known(values: Mapping[str, Any]) -> None:
    """Raise for the first name that is neither known nor a dotted path.

    A user's own name, without dots, is known once the user's file is imported: then nothing is refused here.
    """
    users = any("." in str(item) for name in REGISTERED for item in _items(values.get(name)))
    for name in [name for name in (*REGISTERED, *LISTED) if name in values]:
        registered = name in REGISTERED
        try:
            known = registered_names(*REGISTERED[name]) if registered else constant(*LISTED[name])
        except UnreadableSource:
            continue
        if known is UNKNOWN or (registered and users):
            continue
        for value in map(str, _items(values[name])):
            base = value.partition("(")[0]  # a criterion's options stand in brackets behind it
            if base not in known:
                kind = REGISTERED[name][1] if registered else ""
                wrong = f"is no {KIND_WORDS.get(kind, kind)}" if registered else "is not known"
                tail = ", or give the dotted path of a function of yours." if registered else "."
                hint = close_match(base, known) or "."
                raise ValueError(f"{name}={value!r} {wrong}{hint} Known are {', '.join(known)}{tail}")


def _items(value: Any) -> list[Any]:
    """The values of an argument, of which a list has several; none where it is None."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _check_value(field: SourceField, value: Any, prefix: str = "") -> None:
    """Raise for a config's value that is none of a field's; values whose kind the source does not say pass."""
    for item in value if field.is_list and isinstance(value, list) else [value]:
        if item is None or not (field.choices or field.kind):
            continue
        if field.choices and item not in field.choices and str(item) not in map(str, field.choices):
            known = ", ".join(map(str, field.choices))
            raise ValueError(f"{prefix}{field.name}={item!r} is not known; choose one of {known}.")
        if field.kind in (int, float, bool) and not _converts(field.kind, item):
            name = {int: "a whole number", float: "a number", bool: "true or false"}[field.kind]
            raise ValueError(f"{prefix}{field.name}={item!r} must be {name}.")


def _converts(kind: Any, value: Any) -> bool:
    if isinstance(value, list | dict):
        return False
    if not isinstance(value, str):
        return True
    try:
        (to_bool if kind is bool else kind)(value)
    except (ValueError, argparse.ArgumentTypeError):
        return False
    return True
