"""The schema of a comparison's YAML file: its settings and their types, and the words for mistakes in them.

A setting is added as a field of `ComparisonFile`. Values of a training, an evaluation or a cross-sampling have no
types here: those recipes' own arguments check them, so that whatever a recipe accepts may stand in the file.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic import ValidationError as SchemaError
from pydantic_core import PydanticCustomError

from tokenshift.analysis.comparison.outcomes import DEFAULT_OUTCOME, OUTCOMES
from tokenshift.analysis.registry import close_match
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, SHIFT_MEASURES
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import RECORD
from tokenshift.recipes.command_line.dry_run import PLAN_OPTIONS
from tokenshift.recipes.command_line.early_check import command_fields
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position, short_repr
from tokenshift.recipes.jobs.comparison.shipped_variants import SHIPPED

RESERVED = ("output_dir", "seed", "run_name", "wandb_group", "resume_from_checkpoint", "overwrite", "config", "env")
"""Arguments of a training that the comparison sets for each cell."""

# The names come from the sources, so that a mistake in a file is named before anything slow is imported.
TRAINING_FIELDS = list(command_fields(COMMANDS["train"]))
EVALUATION_FIELDS = {*command_fields(COMMANDS["evaluate"])}
EVALUATION_FIELDS -= {"model", "against", "output_dir", "overwrite", *PLAN_OPTIONS}
RECOVERY_FIELDS = {*command_fields(COMMANDS["cross"]), "budget", "criterion"}
RECOVERY_FIELDS -= {"rl_model", "base_model", "directions", "criteria", "budgets", "output_dir", "overwrite"}
RECOVERY_FIELDS -= {*PLAN_OPTIONS}

MESSAGES = {
    "extra_forbidden": "the setting {setting!r} is not known{hint}",
    "missing": "{setting} is missing: {description}.",
    "too_short": "{setting} is empty: {description}.",
    "unknown_field": "{setting}: the field {value} is not known{hint}",
    "unknown_value": "{setting}={value} is not known{hint}",
    "reserved_field": "{setting} sets {name}, which the comparison sets for each cell; drop it.",
    "dict_type": "{setting} must be a mapping of names to values, not {value}.",
    "model_type": "{setting} must be a mapping of names to values, not {value}.",
    "list_type": "{setting}={value} must be a list of whole numbers, for example [0, 1, 2].",
    "int_type": "{setting}={value} must be a whole number.",
    "greater_than_equal": "{setting}={value} must be a whole number of at least {ge}.",
    "less_than": "{setting}={value} must be a whole number below {lt}.",
    "bool_type": "{setting}={value} must be true or false.",
    "string_type": "{setting}={value} must be text.",
    "string_pattern_mismatch": "{setting} {value} is also the name of a folder: use letters, digits, and . _ + - "
    "after the first.",
}
"""Messages by pydantic's type of an error. A name in a mapping that is wrong is the value of the mapping's setting."""


def _one_of(
    known: Collection[str], listed: str = "", error: Literal["unknown_field", "unknown_value"] = "unknown_field"
) -> AfterValidator:
    """A check that a name is known.

    Args:
        known: The known names.
        listed: How to see them, where they are too many for a message.
        error: Whether the name is a field's, or a setting's value.
    """
    listed = listed or f"known are {', '.join(sorted(known))}."

    def check(name: str) -> str:
        if name not in known:
            hint = close_match(name, known) or f"; {listed}"
            raise PydanticCustomError(error, "unknown", {"hint": hint})
        return name

    return AfterValidator(check)


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise PydanticCustomError("reserved_field", "reserved", {"name": name})
    return name


def _name_or_settings(value: Any) -> Any:
    if isinstance(value, list):
        raise PydanticCustomError("string_type", "no text")
    return value if isinstance(value, dict) else str(value)


Text = Annotated[str, BeforeValidator(lambda value: value if isinstance(value, list | dict) else str(value))]
FolderName = Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Count = Annotated[StrictInt, Field(ge=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**32)]
TrainingField = Annotated[
    str,
    _one_of(TRAINING_FIELDS, "python recipes/grpo_divweighted.py --help lists them."),
    AfterValidator(_not_reserved),
]
Overrides = Annotated[dict[TrainingField, Any], BeforeValidator(lambda value: {} if value is None else value)]
TrainingConfig = Annotated[Any, BeforeValidator(_name_or_settings)]
"""A name, or the settings themselves, as the record of a comparison has them."""
EvaluationField = Annotated[str, _one_of(EVALUATION_FIELDS)]
RecoveryField = Annotated[str, _one_of(RECOVERY_FIELDS)]
PromptField = Annotated[str, _one_of(("system_prompt", "prompt_template"))]
OutcomeName = Annotated[StrictStr, _one_of(list(OUTCOMES), error="unknown_value")]
MeasureName = Annotated[StrictStr, _one_of(SHIFT_MEASURES, error="unknown_value")]


class LaunchSettings(BaseModel):
    """The way steps are launched."""

    model_config = ConfigDict(extra="forbid")

    config_file: Text = Field(description="name one of accelerate_configs/, or a file")
    num_processes: Count | None = None


class ComparisonFile(BaseModel):
    """The settings of a file. Descriptions are what a message says where a setting is missing."""

    model_config = ConfigDict(extra="forbid")

    name: FolderName
    output_dir: Text | None = None
    config: TrainingConfig = Field(description="name a training config, of recipes/configs or by its path")
    overrides: Overrides = {}
    seeds: list[Seed] = Field(min_length=1, description="name at least one, for example seeds: [0, 1]")
    replication_seeds: list[Seed] = []
    outcome: OutcomeName = DEFAULT_OUTCOME
    measure: MeasureName = DEFAULT_MEASURE
    baseline: Text = Field(description="name the variant that the others are compared with")
    variants: dict[FolderName, Overrides] = Field(description="name each with its overrides, shipped ones without")
    evaluation: dict[EvaluationField, Any] = Field(
        description="say on which problems, for example evaluation: {datasets: [pocket], size: 256}"
    )
    evaluation_prompts: dict[FolderName, dict[PromptField, Any]] = {}
    recovery: Annotated[
        dict[RecoveryField, Any] | None, BeforeValidator(lambda value: None if value in (False, "off") else value)
    ] = None
    launch: Annotated[LaunchSettings | None, BeforeValidator(lambda value: None if value == {} else value)] = None
    parallel: Count = 1
    keep_checkpoints: StrictBool = False


def read_settings(document: LinedYaml) -> ComparisonFile:
    """The settings of a file, with their types; those that are null are as if they were not there.

    Raises:
        ValueError: for the first mistake, with its line; a setting that is not known goes before all others.
    """
    settings = {} if document.data is None else document.data
    if isinstance(settings, dict):
        given = {name: value for name, value in settings.items() if value is not None}
        settings = {"name": document.path.stem, **given}
        settings.pop(RECORD, None)
    try:
        read = ComparisonFile.model_validate(settings)
    except SchemaError as error:
        mistakes = error.errors(include_url=False)
    else:
        _check_together(document, read)
        return read
    first = min(mistakes, key=lambda mistake: (mistake["type"] != "extra_forbidden", document.line(mistake["loc"])))
    position = first["loc"]
    known = (LaunchSettings if len(position) > 1 else ComparisonFile).model_fields
    name = str(position[-1]) if position else ""
    words = {
        "setting": _words(position[:-2] if name == "[key]" else position),
        "value": short_repr(first["input"]),
        "reason": first["msg"],
        "description": known[name].description if name in known else "",
        "hint": close_match(name, known) or f"; known are {', '.join(sorted(known))}.",
    }
    message = MESSAGES.get(first["type"], "{setting}={value} is refused: {reason}.")
    raise document.wrong(position, message.format(**words | first.get("ctx", {})))


def _check_together(document: LinedYaml, settings: ComparisonFile) -> None:
    """Check the settings that speak of one another.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    for name in ("seeds", "replication_seeds"):
        seeds = getattr(settings, name)
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                reason = "a seed trained again is the same cell."
                raise document.wrong((name, index), f"{name} has {seed} twice; {reason}")
            if name != "seeds" and seed in settings.seeds:
                reason = "a seed that suggested a difference cannot confirm it; name others."
                raise document.wrong((name, index), f"{name} has {seed}, which is in seeds: {reason}")
    if settings.baseline not in settings.variants:
        names = ", ".join(settings.variants)
        raise document.wrong(("baseline",), f"baseline={settings.baseline!r} is none of the variants: {names}.")
    if len(settings.variants) < 2:
        raise document.wrong(("variants",), f"variants has {settings.baseline!r} alone; name one to compare with it.")
    for name, given in settings.variants.items():
        if not given and name not in SHIPPED:
            shipped = ", ".join(SHIPPED)
            raise document.wrong(
                ("variants", name),
                f"variant {name!r} has no overrides, and is none of the shipped ones: {shipped}.",
            )
    for name in settings.evaluation_prompts:
        if name not in settings.variants:
            hint = close_match(name, settings.variants) or f"; variants are {', '.join(settings.variants)}."
            raise document.wrong(("evaluation_prompts", name), f"evaluation_prompts has {name!r}, no variant{hint}")
    if not settings.evaluation.get("datasets"):
        raise document.wrong(("evaluation",), "evaluation names no datasets; for example datasets: [pocket].")


def _words(position: Position) -> str:
    if position[:1] == ("variants",) and len(position) > 1:
        return f"variant {position[1]!r}"
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in position]
    return "".join(steps).removeprefix(".") or "a comparison"
