"""A comparison's judgement of what it trained: the arguments of its evaluation and its recovery."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from datasets import Dataset

from tokenshift.analysis.thresholds import CORRECT
from tokenshift.recipes.command_line.parser import parse_into, words_of
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import BY_SET, EvaluationArguments, problem_sets
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position
from tokenshift.recipes.jobs.comparison.variants import Variant


def read_evaluation(
    document: LinedYaml, given: Mapping[str, Any], position: Position = ("evaluation",)
) -> tuple[dict[str, Any], EvaluationArguments, dict[str, Dataset]]:
    """The arguments of the evaluation as they are given and as they are in a run, and the problem sets by name.

    Args:
        document: The file.
        given: What the file says under `evaluation`.
        position: Where mistakes are.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    settings = dict(given)
    if not isinstance(settings["datasets"], list):
        settings["datasets"] = [settings["datasets"]]
    try:
        args = parse_into((EvaluationArguments,), ["--model", "-", *words_of(settings)])[0]
        return settings, args, problem_sets(args)
    except (ValueError, TypeError) as error:
        written: dict[str, Position] = {name: (*position, name) for name in given}
        raise document.blame(error, written, position, f"{'.'.join(map(str, position))}: ") from error


def refuse_trained_on(
    document: LinedYaml, datasets: Iterable[str], sets: Mapping[str, Dataset], variants: Mapping[str, Variant]
) -> None:
    """Raise where a set has problems that some variant is trained on; made problems never do.

    Args:
        document: The file.
        datasets: What the evaluation's sets are made of, in their order.
        sets: The problem sets by name.
        variants: All variants by name.

    Raises:
        ValueError: for the first such set.
    """
    done: list[dict[str, Any]] = []
    for variant in variants.values():
        recipe = variant.recipe
        arguments = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
        same = [name for name, dataset in zip(sets, datasets, strict=True) if dataset == recipe.dataset_name]
        if recipe.dataset_name in MADE or not same or arguments in done:
            continue
        done.append(arguments)
        train, _ = recipe.training_problems(recipe.dataset_train_split)
        seen = {str(prompt) for prompt in train["prompt"]}
        for name in same:
            count = sum(str(prompt) in seen for prompt in sets[name]["prompt"])
            if count:
                raise document.wrong(
                    ("evaluation",),
                    f"evaluation: {count} of the {len(sets[name])} problems of {name!r} are trained on; name a "
                    f"dataset_split without them, or a size of at most eval_size={recipe.eval_size}.",
                )


def read_recovery(
    document: LinedYaml, given: Mapping[str, Any] | None, evaluated: EvaluationArguments
) -> dict[str, Any] | None:
    """The arguments of the cross-sampling, without the models: on the first of the evaluation's sets, judged alike.

    Args:
        document: The file.
        given: What the file says under `recovery`; None where it is off.
        evaluated: The evaluation's arguments as they are in a run.

    Returns:
        None where it is off.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    if given is None:
        return None
    settings = dict(given)
    if "budget" not in settings:
        raise document.wrong(
            ("recovery",), "recovery has no budget; give a share of tokens, for example budget: 0.02."
        )
    read: dict[str, Any] = {name: evaluated.of_set(name, 0) for name in BY_SET}
    if evaluated.solution_of(0) is None:
        read["solution_column"] = "none"
    alike = ["system_prompt", "prompt_template", "chat_template_kwargs", "reward_func"]
    if evaluated.datasets[0] in MADE:  # what is given for other sets is not for made ones
        read, alike = {"dataset_split": read["dataset_split"]}, ["reward_func"]
    read |= {name: getattr(evaluated, name) for name in alike}
    if evaluated.correct_threshold != CORRECT:
        read["correct_threshold"] = evaluated.correct_threshold
    settings = {
        "directions": ["forward"],
        "criteria": [settings.pop("criterion", "js_top_p")],
        "budgets": [settings.pop("budget")],
        "dataset_name": evaluated.datasets[0],
        **{name: value for name, value in read.items() if value is not None},
        **settings,
    }
    try:
        parse_into((CrossArguments,), words_of(settings))
    except (ValueError, TypeError) as error:
        written: dict[str, Position] = {name: ("recovery", name) for name in given}
        written |= {"budgets": ("recovery", "budget"), "criteria": ("recovery", "criterion")}
        raise document.blame(error, written, ("recovery",), "recovery: ") from error
    return settings
