"""The evaluation of loaded models in one call: responses, numbers with intervals, and a comparison.

    from tokenshift.analysis import evaluate
    from tokenshift.recipes.inputs import grader_of
    result = evaluate({"RL": rl, "base": base}, tokenizer, problems, grader_of(problems, "accuracy_reward"))
    result.numbers

`recipes/evaluate.py` takes the same steps by the same functions, from models by name.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.checks import check_whole
from tokenshift.analysis.divergence.hidden_states import evaluation_mode
from tokenshift.analysis.evaluation.report import grading_notes, voting, write_evaluation_report
from tokenshift.analysis.evaluation.responses import Grader, ProblemSet, RewardGrader, Subject, evaluate_model
from tokenshift.analysis.evaluation.summary import evaluation_summary
from tokenshift.analysis.sampling.generators import Generator, Sampling, TransformersGenerator
from tokenshift.analysis.sampling.prompts import encode_problems, fitting_sampling
from tokenshift.analysis.sampling.token_ids import end_tokens
from tokenshift.analysis.storage.run_folder import RunFolder, held_run_folder

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation, which a notebook shows as its numbers.

    Attributes:
        folder: holds `responses/`, and what `report` writes.
        table: one row per response, as `evaluate_model` returns them.
        metadata: models, sampling, and whatever else the rows come from.
        samples: responses per problem.
        ks: each k of pass@k and majority@k.
        resamples: resamples of the bootstrap.
    """

    folder: RunFolder
    table: pa.Table
    metadata: Mapping[str, Any]
    samples: int
    ks: Sequence[int]
    resamples: int

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """All numbers with 95 % bootstrap intervals, as `evaluation_summary` returns them."""
        voted = voting(self.table, self.metadata)
        return evaluation_summary(self.table, self.samples, self.ks, resamples=self.resamples, voting=voted)

    @functools.cached_property
    def numbers(self) -> pd.DataFrame:
        """One row per (set, model, metric) with the columns `value`, `low`, `high`, and `p_value` of differences.

        Lengths are in tokens, the mean reward has no unit, and all else are shares. With two models, `difference`
        stands in the place of a third: the first model's values minus the second's, problem by problem.
        """
        rows = []
        for set_name, group in self.summary["groups"].items():
            for model, metrics in group["models"].items():
                rows += [(set_name, model, metric, entry or {}) for metric, entry in metrics.items()]
            for metric, comparison in group.get("comparison", {}).items():
                rows.append((set_name, "difference", metric, {**comparison, "value": comparison["difference"]}))
        index = pd.MultiIndex.from_tuples([row[:3] for row in rows], names=["set", "model", "metric"])
        return pd.DataFrame([row[3] for row in rows], index, ["value", "low", "high", "p_value"], dtype=float)

    def report(self) -> Path:
        """Write `evaluation.md`, `evaluation.json` and `figures/` into the folder, and return the page's path."""
        samples, ks, resamples = self.samples, self.ks, self.resamples
        write_evaluation_report(self.folder, self.table, self.metadata, samples=samples, ks=ks, resamples=resamples)
        return self.folder.path / "evaluation.md"

    def _repr_html_(self) -> str:
        models = escape(" and ".join(self.summary["models"]))
        numbers = self.numbers.to_html(float_format="{:.3g}".format, na_rep="-")
        notes = "".join(f"<p>{escape(note)}</p>" for note in grading_notes(self.table, self.metadata))
        return f"<p>Evaluation of {models}; 95 % bootstrap intervals by problem</p>{numbers}{notes}"


def evaluate(
    models: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    problems: "Dataset | Sequence[Any]",
    grade: Grader,
    *,
    sampling: Sampling | None = None,
    samples: int = 8,
    ks: Sequence[int] | None = None,
    batch_size: int = 64,
    resamples: int = 10_000,
    set_name: str = "problems",
    output_dir: str | Path | None = None,
) -> Evaluation:
    """Sample and grade the responses of one model or several; with two, compare the first with the second.

    All models answer with common random numbers. Several processes of one launch share the work if each calls it.

    Args:
        models: causal LMs by name, each on one device or spread over several, of one tokenizer; they are put in eval
            mode for the while.
        tokenizer: the models' tokenizer.
        problems: a `datasets.Dataset` with the column `prompt`; or a list of texts, conversations or `Prompt`s.
        grade: grades of responses; `tokenshift.recipes.inputs.grader_of(problems, "accuracy_reward")` makes one.
        sampling: by default `Sampling()`, with as many new tokens (at most 1024) as every model can read.
        samples: responses per problem.
        ks: each k of pass@k and majority@k; by default 1 and `samples`.
        batch_size: responses sampled at once.
        resamples: resamples of the bootstrap.
        set_name: name of the problems in the column `set`.
        output_dir: an empty or new folder that keeps the results; by default a temporary one, which is deleted with
            the result. An evaluation that can be stopped and goes on is that of `recipes/evaluate.py`.

    Raises:
        ValueError: for numbers out of range, an empty prompt, a response that would not fit into a model's context,
            or an `output_dir` that is not empty.
    """
    if not models:
        raise ValueError("There is nothing to evaluate: models is empty.")
    for name, value in (("samples", samples), ("batch_size", batch_size), ("resamples", resamples)):
        check_whole(name, value)
    for k in ks or ():
        check_whole(f"ks={ks!r} has {k!r}; k", k)
    chosen_ks = sorted({1, samples} if ks is None else set(ks))
    if not chosen_ks or not 1 <= chosen_ks[0] <= chosen_ks[-1] <= samples:
        raise ValueError(f"ks={ks} must be numbers of at least 1, and at most samples={samples}.")
    prompts = encode_problems(problems, tokenizer)
    sampling = fitting_sampling(sampling, prompts, list(models.values()))
    problem_set = ProblemSet(set_name, prompts, grade)
    metadata = {"models": list(models), "sets": {set_name: len(prompts)}, "samples": samples, **asdict(sampling)}
    if isinstance(grade, RewardGrader):
        metadata |= grade.rule
    state = PartialState()
    tables = []
    with held_run_folder(output_dir, state) as folder:
        for name, model in models.items():
            generator: Callable[[], Generator] = functools.partial(TransformersGenerator, model, tokenizer, sampling)
            subject = Subject(name, tokenizer, end_tokens(tokenizer, model), generator)
            with evaluation_mode(model):
                tables.append(
                    evaluate_model(
                        folder,
                        subject,
                        [problem_set],
                        samples=samples,
                        seed=sampling.seed,
                        batch_size=batch_size,
                        metadata=metadata,
                        state=state,
                    )
                )
    return Evaluation(folder, pa.concat_tables(tables), metadata, samples, chosen_ks, resamples)
