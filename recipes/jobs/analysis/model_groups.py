"""Several trained models of one analysis, by the name of their recipe; nothing heavy is imported."""

import re
from collections.abc import Sequence

from tokenshift.analysis.report.statements import FEWEST_RUNS
from tokenshift.analysis.shift.group_names import ONLY, SFT
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.inputs.model_names import local_folder

GROUP = re.compile(r"(?P<name>[A-Za-z][\w-]*)=(?P<model>.+)")
"""A model with the name of its recipe before it."""


def named_groups(models: Sequence[str], sft: Sequence[str] = ()) -> dict[str, list[str]]:
    """The models by the name of their recipe, as `name=model` gives it; without names all are of one recipe.

    Args:
        models: The RL models.
        sft: The SFT controls.

    Raises:
        ValueError: If some models have a name and others none, a model is given twice, or a recipe that is compared
            with another has one run.
    """
    groups: dict[str, list[str]] = {}
    unnamed = [model for model in models if _parts(model) is None]
    if unnamed and len(unnamed) < len(models):
        raise ValueError(
            f"rl_model names a recipe for some models and none for {unnamed[0]!r}; give name=model for all, or none."
        )
    for model in models:
        name, bare = _parts(model) or (ONLY, model)
        groups.setdefault(name, []).append(bare)
    if SFT in groups:
        raise ValueError(f"rl_model names a recipe {SFT!r}; give SFT models by --sft_models.")
    seen: dict[str, str] = {}
    for setting, listed in (
        ("rl_model", [model for group in groups.values() for model in group]),
        ("sft_models", sft),
    ):
        for model in listed:
            place = _place(model, setting)
            if place in seen:
                raise ValueError(f"{setting}={model!r} is given twice; another training is another run.")
            seen[place] = model
    if sft or len(groups) > 1:
        compared = {f"the recipe {name!r}": models for name, models in groups.items()}
        for name, models in {**compared, **({"sft_models": sft} if sft else {})}.items():
            if len(models) == 1:
                raise ValueError(
                    f"Recipes are compared over runs, of which a verdict needs {FEWEST_RUNS} or more each, but {name} "
                    f"has one, {models[0]!r}; give more, or analyze it alone (--control compares two single runs)."
                )
    return groups


def _parts(model: str) -> tuple[str, str] | None:
    matched = None if user_path(model, "rl_model").exists() else GROUP.fullmatch(model)
    return None if matched is None else (matched["name"], matched["model"])


def _place(model: str, setting: str) -> str:
    """The folder that a model's name stands for, or the name of a hub model."""
    folder = local_folder(model, setting)
    return model if folder is None else str(folder.resolve())
