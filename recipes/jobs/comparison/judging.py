"""How a comparison judges what it trained: the arguments of its evaluation and its recovery."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from datasets import Dataset

from tokenshift.recipes.command_line.parser import parse_into, words_of
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import BY_SET, EvaluationArguments, problem_sets
from tokenshift.recipes.jobs.comparison.lined_yaml import Given, LinedYaml
from tokenshift.recipes.jobs.comparison.variants import Variant

_EVALUATION_RESERVED = ("model", "against", "output_dir", "overwrite")
_RECOVERY_RESERVED = ("rl_model", "base_model", "directions", "criteria", "budgets", "output_dir", "overwrite")


def _arguments(reader: LinedYaml, given: Given, kind: Any, reserved: Iterable[str], more: Iterable[str] = ()) -> Any:
    own = reader.mapping(given.node, "it", given.line)
    known = [each.name for each in fields(kind) if each.name not in reserved]
    reader.refuse_unknown(own, [*known, *more], "the field")
    return own


def read_evaluation(reader: LinedYaml, given: Given) -> tuple[dict[str, Any], EvaluationArguments, dict[str, Dataset]]:
    """The arguments as they are given, as they are in a run, and the sets by name.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    own = _arguments(reader, given, EvaluationArguments, _EVALUATION_RESERVED)
    settings = {name: each.value for name, each in own.items()}
    if not settings.get("datasets"):
        raise reader.wrong(given.line, "evaluation names no datasets; for example datasets: [pocket].")
    if not isinstance(settings["datasets"], list):
        settings["datasets"] = [settings["datasets"]]
    try:
        args = parse_into((EvaluationArguments,), ["--model", "-", *words_of(settings)])[0]
        return settings, args, problem_sets(args)
    except (ValueError, TypeError) as error:
        raise reader.blame(error, own, given.line, "evaluation: ") from error


def refuse_trained_on(
    reader: LinedYaml,
    line: int,
    datasets: Iterable[str],
    sets: Mapping[str, Dataset],
    variants: Mapping[str, Variant],
) -> None:
    """Raise where a set has problems that some variant is trained on; made problems never do.

    Args:
        reader, line: of the evaluation.
        datasets: what its sets are made of, in their order.
        sets: by name.
        variants: all.

    Raises:
        ValueError: for the first such set.
    """
    done: list[dict[str, Any]] = []
    for variant in variants.values():
        recipe = variant.recipe
        arguments = {each.name: getattr(recipe, each.name) for each in fields(recipe)}
        same = [name for name, dataset in zip(sets, datasets, strict=True) if dataset == recipe.dataset_name]
        if recipe.dataset_name in MADE or not same or arguments in done:
            continue
        done.append(arguments)
        train, _ = recipe.training_problems(recipe.dataset_train_split)
        seen = {str(prompt) for prompt in train["prompt"]}
        for name in same:
            count = sum(str(prompt) in seen for prompt in sets[name]["prompt"])
            if count:
                raise reader.wrong(
                    line,
                    f"evaluation: {count} of the {len(sets[name])} problems of {name!r} are trained on; name a "
                    f"dataset_split without them, or a size of at most eval_size={recipe.eval_size}.",
                )


def read_recovery(reader: LinedYaml, given: Given | None, evaluated: EvaluationArguments) -> dict[str, Any] | None:
    """The arguments of the cross-sampling, without the models: on the first of the evaluation's sets, judged alike.

    Args:
        reader: of the file.
        given: what the file says.
        evaluated: the evaluation's arguments, as they are in a run.

    Returns:
        None where it is off.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    if given is None or given.value in (False, "off"):
        return None
    own = _arguments(reader, given, CrossArguments, _RECOVERY_RESERVED, ["budget"])
    settings = {name: each.value for name, each in own.items()}
    if "budget" not in settings:
        raise reader.wrong(given.line, "recovery has no budget; give a share of tokens, for example budget: 0.02.")
    read = {name: evaluated.of_set(name, 0) for name in BY_SET}
    if evaluated.solution_of(0) is None:
        read["solution_column"] = "none"
    read |= {name: getattr(evaluated, name) for name in ("system_prompt", "prompt_template", "reward_func")}
    settings = {
        "directions": ["forward"],
        "criteria": ["js"],
        "budgets": [settings.pop("budget")],
        "dataset_name": evaluated.datasets[0],
        **{name: value for name, value in read.items() if value is not None},
        **settings,
    }
    try:
        parse_into((CrossArguments,), words_of(settings))
    except (ValueError, TypeError) as error:
        raise reader.blame(error, {**own, "budgets": own["budget"]}, given.line, "recovery: ") from error
    return settings
