"""What a comparison's YAML file may say: its settings and their types, and the words for mistakes in them.

A setting is added as a field of `ComparisonFile`. Values of a training, an evaluation or a cross-sampling have no
types here: those recipes' own arguments check them, so that whatever a recipe accepts may stand in the file.
"""

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic import ValidationError as SchemaError
from pydantic_core import ErrorDetails, PydanticCustomError

from tokenshift.analysis.registry import close_match
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position, short_repr
from tokenshift.recipes.jobs.training.arguments import TRAINING

RESERVED = ("output_dir", "seed", "run_name", "wandb_group", "resume_from_checkpoint", "overwrite", "config", "env")
"""Arguments of a training that the comparison sets for each cell."""

TRAINING_FIELDS = tuple(field.name for kind in TRAINING for field in fields(kind))
EVALUATION_FIELDS = {field.name for field in fields(EvaluationArguments)} - {
    *("model", "against", "output_dir", "overwrite")
}
RECOVERY_FIELDS = {"budget", "criterion"} | {field.name for field in fields(CrossArguments)} - {
    *("rl_model", "base_model", "directions", "criteria", "budgets", "output_dir", "overwrite")
}

MESSAGES = {
    "extra_forbidden": "the setting {place!r} is not known{hint}",
    "missing": "{place} is missing: {description}.",
    "too_short": "{place} is empty: {description}.",
    "unknown_field": "{place}: the field {name!r} is not known{hint}",
    "reserved_field": "{place} sets {name}, which the comparison sets for each cell; drop it.",
    "dict_type": "{place} must be a mapping of names to values, not {value}.",
    "model_type": "{place} must be a mapping of names to values, not {value}.",
    "list_type": "{place}={value} must be a list of whole numbers, for example [0, 1, 2].",
    "int_type": "{place}={value} must be a whole number.",
    "greater_than_equal": "{place}={value} must be a whole number of at least {ge}.",
    "bool_type": "{place}={value} must be true or false.",
    "string_type": "{place}={value} must be text.",
    "value_error": "{error}",
}
"""Messages by pydantic's type of an error."""


def _is_field(known: Iterable[str], listed: str | None = None, reserved: Iterable[str] = ()) -> AfterValidator:
    """A check that a name is one of the known ones.

    Args:
        known: Names that may be there.
        listed: How to see them, where they are too many for a message.
        reserved: Names among them that the comparison sets itself.
    """
    known = sorted(known)
    listed = listed or f"known are {', '.join(known)}."

    def check(name: str) -> str:
        if name in reserved:
            raise PydanticCustomError("reserved_field", "reserved")
        if name not in known:
            raise PydanticCustomError("unknown_field", "unknown", {"hint": close_match(name, known) or f"; {listed}"})
        return name

    return AfterValidator(check)


def _is_folder_name(what: str) -> AfterValidator:
    def check(name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
            raise ValueError(
                f"{what} {name!r} is also the name of a folder: use letters, digits, and . _ + - after the first."
            )
        return name

    return AfterValidator(check)


def _check_seed(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seeds has {seed}, which must be at least 0 and below 2**32.")
    return seed


_OR_EMPTY = BeforeValidator(lambda value: {} if value is None else value)
_OR_DEFAULT = BeforeValidator(lambda value: None if value == {} else value)
_OR_OFF = BeforeValidator(lambda value: None if value in (False, "off") else value)

Text = Annotated[str, BeforeValidator(lambda value: value if isinstance(value, list | dict) else str(value))]
Count = Annotated[StrictInt, Field(ge=1)]
Overrides = Annotated[
    dict[
        Annotated[
            str, _is_field(TRAINING_FIELDS, "python recipes/grpo_divweighted.py --help lists them.", reserved=RESERVED)
        ],
        Any,
    ],
    _OR_EMPTY,
]
"""Arguments of a training."""


class LaunchSettings(BaseModel):
    """How steps are launched."""

    model_config = ConfigDict(extra="forbid")

    config_file: Text = Field(description="name one of accelerate_configs/, or a file")
    num_processes: Count | None = Field(None, description="processes of a step; the config_file's when not given")


class ComparisonFile(BaseModel):
    """The settings of a file. Descriptions say what to write where a setting is missing."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, _is_folder_name("name")] = Field(description="the comparison's, and the W&B group's")
    output_dir: Text | None = Field(None, description="where results go")
    config: Text = Field(description="name a training config, of recipes/configs or by its path")
    overrides: Overrides = Field({}, description="fields of the config to change for all cells")
    seeds: list[Annotated[StrictInt, AfterValidator(_check_seed)]] = Field(
        strict=True, min_length=1, description="name at least one, for example seeds: [0, 1]"
    )
    baseline: Text = Field(description="name the variant that the others are compared with")
    variants: dict[Annotated[str, _is_folder_name("the variant")], Overrides] = Field(
        description="name each with its overrides, shipped ones without"
    )
    evaluation: dict[Annotated[str, _is_field(EVALUATION_FIELDS)], Any] = Field(
        description="say on which problems, for example evaluation: {datasets: [pocket], size: 256}"
    )
    recovery: Annotated[dict[Annotated[str, _is_field(RECOVERY_FIELDS)], Any] | None, _OR_OFF] = Field(
        None, description="cross-sampling at a budget, or off"
    )
    launch: Annotated[LaunchSettings | None, _OR_DEFAULT] = Field(
        None, description="an accelerate config_file; plain python without it"
    )
    parallel: Count = Field(1, description="cells at once")
    keep_checkpoints: StrictBool = Field(False, description="whether checkpoints of trained cells stay")


def read_settings(document: LinedYaml) -> ComparisonFile:
    """The settings of a file, with their types; those that are null are as if they were not there.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    settings = {} if document.data is None else document.data
    if isinstance(settings, dict):
        settings = {"name": document.path.stem} | {
            name: value for name, value in settings.items() if value is not None
        }
    try:
        return ComparisonFile.model_validate(settings)
    except SchemaError as error:
        mistakes = error.errors(include_url=False)
    unknown_first = min(mistakes, key=lambda mistake: (mistake["type"] != "extra_forbidden", _line(document, mistake)))
    raise document.wrong(_position(unknown_first), _message(unknown_first))


def _position(mistake: ErrorDetails) -> Position:
    """Where a mistake is: a name that is wrong has its own value's position."""
    return mistake["loc"][:-1] if mistake["loc"][-1:] == ("[key]",) else mistake["loc"]


def _line(document: LinedYaml, mistake: ErrorDetails) -> int:
    return document.line(_position(mistake))


def _message(mistake: ErrorDetails) -> str:
    position, model = _position(mistake), LaunchSettings if len(mistake["loc"]) > 1 else ComparisonFile
    name = str(position[-1]) if position else ""
    known = model.model_fields
    words = {
        "name": name,
        "place": _words(position[:-1] if "field" in mistake["type"] else position),
        "value": short_repr(mistake["input"]),
        "description": known[name].description if name in known else "",
        "hint": close_match(name, known) or f"; known are {', '.join(sorted(known))}.",
    }
    return MESSAGES[mistake["type"]].format(**words | mistake.get("ctx", {}))


def _words(position: Position) -> str:
    match position:
        case ():
            return "a comparison"
        case ("variants", name):
            return f"variant {name!r}"
    first, *others = position
    return str(first) + "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in others)
