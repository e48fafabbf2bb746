"""The YAML file of a scale: what is trained, and how each analysis of it is made."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tokenshift.analysis.registry import close_match
from tokenshift.recipes.command_line.config_files import read_config

DAPO, SIMPLE_RL, HIGH_KL, LOW_KL = "dapo", "simplerl", "high_kl", "low_kl"
ARMS = (DAPO, HIGH_KL, LOW_KL, SIMPLE_RL)
"""The trainings by RL that the publication compares; the SFT control comes beside them."""

SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+]*")
"""A name of `cross_sets`."""

Settings = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: None if value in (False, "off") else value)]
"""Arguments of a recipe; None where the part is left out."""


ArmPrompt = dict[Literal["system_prompt", "prompt_template"], str | None]
"""Arguments that say how a model is asked."""


class ScaleFile(BaseModel):
    """The settings in a scale's file.

    Attributes:
        comparison: A file of `compare_variants.py` without its seeds; its variants are the arms, `dapo` the baseline.
        sft: Arguments of `sft_control.py`, once per seed.
        shift: Arguments of `analyze_shift.py`, once over the runs of `shift_arms` and of the SFT controls.
        shift_arms: The arms whose shifts are analyzed.
        prompts: How an arm's models, and the base beside them, are asked in its evaluations, shifts and
            cross-samplings, where it is otherwise than the settings of these say.
        evolution: Arguments of `analyze_evolution.py`, once per seed of DAPO.
        cross: Arguments of `cross_sample.py`, once per seed, arm of `cross_arms`, set of `cross_sets` and entry of
            `draws`.
        cross_arms: The arms that are cross-sampled.
        cross_sets: The benchmarks of the cross-sampling: name -> further arguments, such as the data set. Where there
            is none, it is the one of `cross`.
        draws: How the two policies draw, `independent` as published or `shared` -> further arguments, such as budgets.
        robustness: Arguments of `shift_robustness.py`, once, for the first seed of DAPO.
        gpus: The number of GPUs of 80 GB that the scale needs.
        needs: What the scale needs beside them, a line each.
        minutes: Minutes of each kind of part, one at a time; of `trainings` of each of them.
        minutes_from: What those minutes come from.
        scale: The name of the scale, in a reproduction's record; else it is the file's.
        seeds, leave_out, parallel: Options of the command line, in a reproduction's record; the command line goes
            before them.
    """

    model_config = ConfigDict(extra="forbid")

    comparison: dict[str, Any]
    sft: dict[str, Any]
    shift: dict[str, Any]
    shift_arms: list[str] = [DAPO, SIMPLE_RL]
    prompts: dict[str, ArmPrompt] = {}
    evolution: Settings = None
    cross: Settings = None
    cross_arms: list[str] = Field(default=[DAPO], min_length=1)
    cross_sets: dict[str, Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})]] = {}
    draws: dict[str, Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})]] = {}
    robustness: Settings = None
    gpus: int = Field(default=0, ge=0)
    needs: list[str] = []
    minutes: dict[str, float] = {}
    minutes_from: str = ""
    scale: str = ""
    seeds: list[int] | None = None
    leave_out: list[str] | None = None
    parallel: int | None = None

    def prompt_of(self, arm: str) -> dict[str, Any]:
        """The arguments by which an arm's models are asked otherwise than the others."""
        return {str(name): value for name, value in self.prompts.get(arm, {}).items()}


def read_scale(path: Path) -> ScaleFile:
    """Read and check a scale's file.

    Raises:
        ValueError: For the first mistake, in one line.
    """
    try:
        scale = ScaleFile.model_validate(read_config(path, "reproduce"))
    except ValidationError as error:
        # a misspelled name says more than the one that is missing for it
        first = min(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
        name = ".".join(map(str, first["loc"])) or "the file"
        hint = close_match(name, ScaleFile.model_fields) if first["type"] == "extra_forbidden" else None
        reasons = {"extra_forbidden": f"is not known{hint or '.'}", "missing": "is missing."}
        reason = reasons.get(first["type"], f"is wrong: {first['msg']}.")
        raise ValueError(f"--config {str(path)!r}: {name} {reason}") from error
    for name in ("seeds", "replication_seeds", "output_dir", "parallel"):
        if name in scale.comparison:
            raise ValueError(
                f"--config {str(path)!r}: comparison sets {name}; give --seeds, --output_dir, --parallel."
            )
    variants = scale.comparison.get("variants") or {}
    if unknown := [arm for arm in (DAPO, *scale.shift_arms, *scale.cross_arms, *scale.prompts) if arm not in variants]:
        raise ValueError(f"--config {str(path)!r}: comparison has no variant {unknown[0]!r}.")
    for name in ("shift_arms", "cross_arms"):
        arms = getattr(scale, name)
        if doubled := [arm for index, arm in enumerate(arms) if arm in arms[:index]]:
            raise ValueError(f"--config {str(path)!r}: {name} has {doubled[0]!r} twice.")
    if wrong := [name for name in scale.cross_sets if not SET_NAME.fullmatch(name)]:
        reason = "it is part of a folder's name: use letters, digits, and . _ + after the first."
        raise ValueError(f"--config {str(path)!r}: cross_sets has {wrong[0]!r}; {reason}")
    if DAPO in scale.prompts:
        raise ValueError(
            f"--config {str(path)!r}: prompts has 'dapo', whose prompt is that of evaluation, shift and cross."
        )
    return scale
