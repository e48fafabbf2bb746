"""The YAML file of a scale: what is trained, and how each analysis of it is made."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tokenshift.analysis.registry import close_match

DAPO, SIMPLE_RL, HIGH_KL, LOW_KL = "dapo", "simplerl", "high_kl", "low_kl"
ARMS = (DAPO, HIGH_KL, LOW_KL, SIMPLE_RL)
"""The trainings by RL that the publication compares; the SFT control comes beside them."""

Settings = Annotated[dict[str, Any] | None, BeforeValidator(lambda value: None if value in (False, "off") else value)]
"""Arguments of a recipe; None where the part is left out."""


class ScaleFile(BaseModel):
    """The settings in a scale's file.

    Attributes:
        comparison: A file of `compare_variants.py` without its seeds; its variants are the arms, `dapo` the baseline.
        sft: Arguments of `sft_control.py`, once per seed.
        shift: Arguments of `analyze_shift.py`, once over the runs of `shift_arms` and of the SFT controls.
        shift_arms: The arms whose shifts are analyzed.
        evolution: Arguments of `analyze_evolution.py`, once per seed of DAPO.
        cross: Arguments of `cross_sample.py`, once per seed of DAPO and per entry of `draws`.
        draws: How the two policies draw, `independent` as published or `shared` -> further arguments, such as budgets.
        robustness: Arguments of `shift_robustness.py`, once, for the first seed of DAPO.
        gpus: The number of GPUs of 80 GB that the scale needs.
        needs: What the scale needs beside them, a line each.
        minutes: Minutes of each kind of part, one at a time; of `trainings` of each of them.
        minutes_from: What those minutes come from.
    """

    model_config = ConfigDict(extra="forbid")

    comparison: dict[str, Any]
    sft: dict[str, Any]
    shift: dict[str, Any]
    shift_arms: list[str] = [DAPO, SIMPLE_RL]
    evolution: Settings = None
    cross: Settings = None
    draws: dict[str, Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})]] = {}
    robustness: Settings = None
    gpus: int = Field(default=0, ge=0)
    needs: list[str] = []
    minutes: dict[str, float] = {}
    minutes_from: str = ""


def read_scale(path: Path) -> ScaleFile:
    """Read and check a scale's file.

    Raises:
        ValueError: For the first mistake, in one line.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        scale = ScaleFile.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {str(path)!r} is not YAML: {' '.join(str(error).split())}") from error
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
    if unknown := [arm for arm in (DAPO, *scale.shift_arms) if arm not in variants]:
        raise ValueError(f"--config {str(path)!r}: comparison has no variant {unknown[0]!r}.")
    return scale
