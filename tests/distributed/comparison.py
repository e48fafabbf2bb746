"""How far a training on several processes is from the same training on one, and what is allowed."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from distributed.worker import CHECKED_TOKENS, LOGITS_FILE
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

FLOOR = 1e-3
"""Logged numbers are compared relative to their size, or to this where they are smaller."""

TIMED = re.compile(r"time|runtime|per_second|flos|memory")
"""Logged numbers that say how long something took."""

FEW = re.compile(
    r"/(p\d+|max|min|full_js_at_exact_zero_(max|mean)|high/.*)$|position[_/]\d+$|entropy.*_(near_zero|low|middle|high)$|std$"
)
"""Logged numbers of few tokens: percentiles, extremes, means of tokens by position or JS; and standard deviations."""

OF_A_START = ("train_loss",)
"""Numbers of the updates since a run was last started, which a resume changes."""


@dataclass(frozen=True)
class Difference:
    """A number that is not the same in two runs.

    Attributes:
        step, name: Where and under which name it was logged.
        expected, found: In the run on one process and in the other; None where it was not logged.
        relative: Its size, relative to the expected number or to `FLOOR`; infinite where one has no number.
    """

    step: int
    name: str
    expected: float | None
    found: float | None
    relative: float

    def __str__(self) -> str:
        return f"{self.name} at update {self.step}: {self.expected} and {self.found}"


def logged(folder: Path) -> dict[tuple[int, str], float]:
    """All numbers that a run has logged but times: update and name -> number."""
    rows = json.loads((folder / "log_history.json").read_text())
    return {
        (row["step"], name): float(value)
        for row in rows
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not TIMED.search(name)
    }


def differences(expected: Path, found: Path) -> list[Difference]:
    """One for each number that either run has logged."""
    ours, theirs = logged(expected), logged(found)
    result = []
    for step, name in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get((step, name)), theirs.get((step, name))
        if one is None or other is None:
            relative = math.inf
        elif one == other or (math.isnan(one) and math.isnan(other)):
            relative = 0.0
        else:
            relative = abs(one - other) / max(abs(one), FLOOR)
            relative = math.inf if math.isnan(relative) else relative
        result.append(Difference(step, name, one, other, relative))
    return result


def column_of(name: str) -> str:
    """The column of the table that a logged number belongs to."""
    if name in ("loss", "train_loss"):
        return "loss"
    return "of few" if FEW.search(name) else "metrics"


def largest_by_column(found: list[Difference]) -> dict[str, Difference]:
    """The largest difference of each column."""
    largest: dict[str, Difference] = {}
    for each in found:
        column = column_of(each.name)
        if column not in largest or each.relative > largest[column].relative:
            largest[column] = each
    return largest


def saved_weights(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's saved model, or of its adapter.

    A tied LM head is saved twice under ZeRO-2 and FSDP2; where it is the embeddings bit for bit it is left out.
    """
    model, adapter = (run / "model" / f"{name}.safetensors" for name in ("model", "adapter_model"))
    weights: dict[str, torch.Tensor] = load_file(model if model.is_file() else adapter)
    head, embeddings = weights.get("lm_head.weight"), weights.get("model.embed_tokens.weight")
    if head is not None and embeddings is not None and torch.equal(head, embeddings):
        del weights["lm_head.weight"]
    return weights


def largest_difference(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """The largest absolute difference of two models' weights; infinite where their names or shapes differ."""
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        return math.inf
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def share_apart(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], distance: float) -> float:
    """The share of two models' weights that differ by more than `distance`; both have the same names and shapes."""
    apart = sum(int(((first[name].float() - second[name].float()).abs() > distance).sum()) for name in first)
    return apart / sum(value.numel() for value in first.values())


def logits_of_saved(run: Path) -> float:
    """The largest difference between the logits at the end of a training and those of its saved model.

    The model is loaded by transformers, an adapter by peft; nothing of the project takes part.
    """
    folder = run / "model"
    kind: Any = AutoPeftModelForCausalLM if (folder / "adapter_config.json").is_file() else AutoModelForCausalLM
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(CHECKED_TOKENS)).logits.float()
    trained = torch.load(run / LOGITS_FILE, weights_only=True)
    return float((logits - trained).abs().max()) if logits.shape == trained.shape else math.inf
