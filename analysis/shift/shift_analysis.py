"""The whole shift analysis of two loaded models in one call: responses, table, numbers, figures and report.

    from tokenshift.analysis import analyze
    shift = analyze(base, rl, tokenizer, ["1 + 1 =", "2 + 2 ="])
    shift.show()  # the response with the most high tokens, shaded, in a notebook
    shift.table.to_pandas().nlargest(10, "js")

`recipes/analyze_shift.py` takes the same steps by the same functions, from models by name.
"""

import functools
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from accelerate import PartialState
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.checks import check_whole
from tokenshift.analysis.divergence.hidden_states import evaluation_mode
from tokenshift.analysis.report.embedded_page import EmbeddedPage
from tokenshift.analysis.report.shaded_response import ShadedResponse
from tokenshift.analysis.sampling.generators import Generator, Sampling, TransformersGenerator
from tokenshift.analysis.sampling.prompts import encode_problems, fitting_sampling
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import Judge, no_judge, sample_trajectories
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.figures.every_figure import summary_figures
from tokenshift.analysis.shift.report import NUMBERS, REPORT_FILE, write_shift_report
from tokenshift.analysis.shift.summary import summarise
from tokenshift.analysis.storage.parquet_files import read_parquet
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.run_folder import RunFolder, held_run_folder
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.thresholds import HIGH, LOG_2, NEAR_ZERO
from tokenshift.analysis.token_table.columns import column as column_values
from tokenshift.analysis.token_table.export import export_table
from tokenshift.analysis.token_table.measure import (
    DEFAULT_MEASURE,
    SHIFT_MEASURES,
    check_measure,
    measure_label,
    measure_name,
    second_measure,
    truncation,
)
from tokenshift.analysis.token_table.model_states import check_lengths
from tokenshift.analysis.token_table.one_at_a_time import OneAtATime
from tokenshift.analysis.token_table.reader import column_names, table_files
from tokenshift.analysis.token_table.scored_run import score_to_table
from tokenshift.analysis.token_table.scoring import PairScorer, Scorer

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLED = {"rl": ("rl",), "base": ("base",), "both": ("rl", "base")}
"""Kinds of trajectories that are sampled, by the word that asks for them."""

SHADING = (*SHIFT_MEASURES, "forward_kl", "reverse_kl", "entropy_base", "entropy_rl")
"""Columns of the table that can shade tokens, all in nats from 0 up."""

GIVEN = "given"
"""Kind of trajectories that the caller gave, in the table's column `trajectory`."""

RESPONSE_KEYS = ("problem_id", "sample_id", "trajectory")
"""Columns that together name a response."""


def sample_and_score(
    folder: RunFolder,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    policies: Mapping[str, Callable[[], Generator]],
    scorer: Callable[[], Scorer] | OneAtATime,
    metadata: Mapping[str, Any],
    *,
    judge: Judge,
    samples: int,
    batch_size: int,
    batch_tokens: int,
    explored: int,
    given: Mapping[str, Sequence[Trajectory]] | None = None,
    state: PartialState | None = None,
) -> None:
    """Sample and judge responses, score both models along them, and write the table; what is there already stays.

    Every process must call it.

    Args:
        folder: the run's folder.
        tokenizer: the models' tokenizer.
        prompts: the problems.
        policies: makes each policy that is sampled from ready, by kind of trajectory.
        scorer: makes both models ready to score with, or one after the other.
        metadata: what the table's rows come from.
        judge: verdicts on responses.
        samples: responses per problem.
        batch_size: responses sampled at once.
        batch_tokens: tokens in a forward pass, padding included.
        explored: how many responses the report shows.
        given: trajectories that need not be sampled, by kind.
        state: the processes that share the work.
    """
    trajectories: dict[str, Sequence[Trajectory]] = dict(given or {})
    for kind, generator in policies.items():
        trajectories[kind] = sample_trajectories(
            folder, kind, prompts, generator, tokenizer, judge, samples=samples, batch_size=batch_size, state=state
        )
    score_to_table(folder, trajectories, scorer, metadata, batch_tokens=batch_tokens, explored=explored, state=state)


class ShiftAnalysis:
    """A finished shift analysis: what RL moved, as a table, numbers, figures and a report.

    Each is made when it is first asked for, and a notebook shows the main numbers.

    Args:
        folder: holds `table/` and, for the report, `explorer.npz`.
        tokenizer: the models' tokenizer.
        resamples: resamples of the bootstrap.

    Attributes:
        folder, tokenizer, resamples: as given.
    """

    def __init__(
        self,
        folder: RunFolder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        measure: str = DEFAULT_MEASURE,
        resamples: int = 1000,
    ) -> None:
        self.folder, self.tokenizer, self.measure, self.resamples = folder, tokenizer, measure, resamples

    @functools.cached_property
    def table(self) -> pa.Table:
        """The per-token table, one row per generated token, in the order in which responses were scored."""
        return pa.concat_tables([read_parquet(file) for file in table_files(self.folder.table)])

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """The origin of the rows: models, sampling, prompts by problem, thresholds, versions of libraries."""
        return read_metadata(table_files(self.folder.table)[0])

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """All numbers with 95 % bootstrap intervals, as `summarise` returns them: `{kind: {group: ...}}`."""
        return summarise(self.folder.table, measure=self.measure, resamples=self.resamples)

    @functools.cached_property
    def second_summary(self) -> dict[str, Any]:
        """The numbers by the other measure, in the same form; empty where the measure has no other."""
        second = second_measure(self.measure, column_names(self.folder.table))
        return {} if second is None else summarise(self.folder.table, measure=second, resamples=self.resamples)

    @functools.cached_property
    def numbers(self) -> pd.DataFrame:
        """The main numbers of all responses: one row per (kind, number), columns `value`, `low`, `high`."""
        rows = []
        for kind, groups in self.summary.items():
            means = groups["all"]["means"]
            for words, section, label in NUMBERS:
                if label in means.get(section, {"labels": ()})["labels"]:
                    index = means[section]["labels"].index(label)
                    rows.append((kind, words, *(means[section][name][index] for name in ("value", "low", "high"))))
        frame = pd.DataFrame(rows, columns=["kind", "number", "value", "low", "high"])
        return frame.set_index(["kind", "number"]).astype(float)

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by the name of its file in a report, `{kind}_{figure}`, such as `rl_quantile_curve`."""
        return {
            f"{kind}_{name}": figure
            for kind, groups in self.summary.items()
            for name, (figure, _) in summary_figures(
                groups, self._title(kind), second=self.second_summary.get(kind)
            ).items()
        }

    def report(self, path: str | Path | None = None) -> Path:
        """Write `summary.json`, `figures/` and `report.html` into the analysis's folder.

        Args:
            path: where a copy of the page goes, one file that needs no other; None for none.

        Returns:
            The path of the page: of the copy, if there is one.
        """
        write_shift_report(self.folder, self.tokenizer, measure=self.measure, resamples=self.resamples)
        page = self.folder.path / REPORT_FILE
        if path is None:
            return page
        copy = user_path(path, "path")
        copy.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(page, copy))

    def explore(self, height: int = 800) -> EmbeddedPage:
        """The report's page, with the explorer of its responses, inside a notebook.

        Args:
            height: height of its frame, pixels.
        """
        return EmbeddedPage(self.report().read_text(encoding="utf-8"), self._heading(), height)

    def show(
        self, response: int | tuple[int, int] | tuple[int, int, str] | None = None, column: str | None = None
    ) -> ShadedResponse:
        """A response with its tokens shaded, as the report's explorer has them; a notebook shows it.

        Args:
            response: which one: its number in the table's order, from 0; its `(problem_id, sample_id)`; or these and
                the kind of trajectory, `(3, 0, "base")`. By default the one with the most high tokens.
            column: the column of the table that shades the tokens, by default the analysis's measure: `js_top_p`,
                `js`, `forward_kl`, `reverse_kl`, `entropy_base` or `entropy_rl`. JS is shaded up to ln 2, and high
                tokens are underlined; another column up to its largest finite value in the table.

        Raises:
            ValueError: for a response or a column that is not there.
        """
        name = self.measure if column is None else column
        if name not in SHADING:
            raise ValueError(f"column={column!r} cannot shade tokens; choose {', '.join(SHADING)}.")
        starts = np.flatnonzero(column_values(self.table, "position") == 0)
        start = int(starts[self._response_number(response, starts)])
        rows = self.table.slice(start, self.table["length"][start].as_py())
        first = {key: rows[key][0].as_py() for key in ("problem_id", "sample_id", "trajectory", "correct")}
        verdict = {True: ", correct", False: ", incorrect", None: ""}[first["correct"]]
        is_js = name in SHIFT_MEASURES
        values = column_values(self.table, name)
        largest = LOG_2 if is_js else float(values[np.isfinite(values)].max(initial=2 * NEAR_ZERO))
        return ShadedResponse(
            name=f"Problem {first['problem_id']}, sample {first['sample_id']}, {first['trajectory']}{verdict}",
            prompt=self.metadata["prompts"][str(first["problem_id"])],
            tokens=rows["token"].to_pylist(),
            values=column_values(rows, name),
            label=measure_label(name, truncation(self.metadata)),
            largest=largest,
            high=HIGH if is_js else None,
        )

    def _response_number(self, response: Any, starts: np.ndarray) -> int:
        """The number of a response among those of the table, from 0."""
        if response is None:
            high = np.add.reduceat(column_values(self.table, self.measure) > HIGH, starts, dtype=np.int64)
            return int(np.argmax(high))
        keys = [self.table[name].take(pa.array(starts)).to_pylist() for name in RESPONSE_KEYS]
        if isinstance(response, tuple):
            found = [number for number, key in enumerate(zip(*keys, strict=True)) if key[: len(response)] == response]
            if found and len(response) in (2, 3):
                return found[0]
            raise ValueError(
                f"response={response!r} is not there; give (problem_id, sample_id) or (problem_id, sample_id, kind), "
                f"such as {tuple(key[0] for key in keys)!r}."
            )
        number = int(response) if isinstance(response, Integral) and not isinstance(response, bool) else -1
        if not 0 <= number < len(starts):
            raise ValueError(f"response={response!r} must be a whole number from 0 to {len(starts) - 1}.")
        return number

    def export(self, path: str | Path, *, columns: Sequence[str] | None = None) -> Path:
        """Write the per-token table as CSV or TSV, by the suffix of `path`; the file appears whole or not at all.

        Args:
            path: the file, which ends in `.csv` or `.tsv`.
            columns: names of the wanted columns, in the wanted order; all when None.

        Raises:
            ValueError: for another suffix, or a column that is not there.
        """
        return export_table(self.table, path, columns=columns)

    def _title(self, kind: str) -> str:
        return f"{self.metadata['rl_model']}, {kind} trajectories"

    def _heading(self) -> str:
        groups = next(iter(self.summary.values()))["all"]
        counts = ", ".join(f"{name} {groups[name]:,}" for name in ("tokens", "responses", "problems"))
        measured = measure_name(self.measure, groups["top_p"])
        return f"What RL moved: {self.metadata['base_model']} to {self.metadata['rl_model']}, {counts}, by {measured}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._heading()}, in {str(self.folder.path)!r}>"

    def _repr_html_(self) -> str:
        numbers = self.numbers.to_html(float_format="{:.3g}".format, na_rep="-")
        return f"<p>{escape(self._heading())}; 95 % bootstrap intervals by problem</p>{numbers}"


def analyze(
    base: Any,
    rl: Any,
    tokenizer: PreTrainedTokenizerBase,
    problems: "Dataset | Sequence[Any] | None" = None,
    *,
    judge: Judge | None = None,
    trajectories: str | Sequence[Trajectory] = "rl",
    sampling: Sampling | None = None,
    samples: int = 1,
    batch_size: int = 32,
    batch_tokens: int = 8192,
    report_responses: int = 200,
    measure: str = DEFAULT_MEASURE,
    resamples: int = 1000,
    base_name: str | None = None,
    rl_name: str | None = None,
    output_dir: str | Path | None = None,
) -> ShiftAnalysis:
    """Analyze which token distributions RL moved, and into what, from two loaded models.

    Responses are sampled and judged, or taken as given, and both models are scored along them. Several processes of
    one launch share the work if each calls it.

    Args:
        base, rl: causal LMs of one tokenizer, each on one device or spread over several; they are put in eval mode
            for the while.
        tokenizer: the models' tokenizer.
        problems: a `datasets.Dataset` with the column `prompt`; or a list of texts, conversations or `Prompt`s. It may
            be left out where trajectories are given.
        judge: verdicts on responses; `tokenshift.recipes.inputs.judge_of(problems, "accuracy_reward")` makes one.
            Without it no response counts as correct or incorrect.
        trajectories: whose responses: `rl`, `base` or `both`; or `Trajectory` objects, which are then not sampled.
        sampling: temperature and top-p of the responses, and of the compared distributions. By default
            `Sampling()`, with as many new tokens (at most 1024) as both models can read.
        samples: responses per problem.
        batch_size: responses sampled at once.
        batch_tokens: tokens scored at once, padding included.
        report_responses: how many responses the report shows.
        measure: the JS that counts: `js_top_p`, between distributions truncated to `sampling.top_p` as published, or
            `js`, between whole ones; the table has both.
        resamples: resamples of the bootstrap.
        base_name, rl_name: names of the models in titles; by default what they were loaded from.
        output_dir: an empty or new folder that keeps the results; by default a temporary one, which is deleted with
            the result. An analysis that can be stopped and goes on is that of `recipes/analyze_shift.py`.

    Raises:
        ValueError: for numbers out of range, an empty prompt, a response that would not fit into a model's context, a
            tokenizer with more ids than a model has, or an `output_dir` that is not empty.
    """
    check_measure(measure)
    _check_numbers(
        samples=samples,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        report_responses=report_responses,
        resamples=resamples,
    )
    prompts = [] if problems is None else encode_problems(problems, tokenizer)
    texts = {prompt.problem_id: prompt.text for prompt in prompts}
    given: dict[str, Sequence[Trajectory]] = {}
    if isinstance(trajectories, str):
        if trajectories not in SAMPLED:
            known = ", ".join(SAMPLED)
            raise ValueError(f"trajectories={trajectories!r} is not known; choose {known}, or give a list of them.")
        if not prompts:
            raise ValueError("There is nothing to analyze: give problems, or a list of trajectories.")
        kinds = SAMPLED[trajectories]
        sampling = fitting_sampling(sampling, prompts, (base, rl))
        settings = {"samples": samples, **asdict(sampling), "trajectories": trajectories}
    else:
        _check_given(trajectories, (base, rl))
        kinds, given = (), {GIVEN: trajectories}
        sampling = sampling or Sampling()
        settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, "trajectories": GIVEN}
        for trajectory in trajectories:
            texts.setdefault(trajectory.problem_id, str(tokenizer.decode(trajectory.prompt_ids)))
    scorer = PairScorer(base, rl, tokenizer, temperature=sampling.temperature, top_p=sampling.top_p)
    models = {"rl": rl, "base": base}
    names = {"base": base_name, "rl": rl_name}
    metadata = {f"{kind}_model": name or models[kind].config.name_or_path or kind for kind, name in names.items()}
    if scorer.note:
        warnings.warn(scorer.note, stacklevel=2)
    state = PartialState()
    with held_run_folder(output_dir, state) as folder, evaluation_mode(base), evaluation_mode(rl):
        sample_and_score(
            folder,
            tokenizer,
            prompts,
            {kind: functools.partial(TransformersGenerator, models[kind], tokenizer, sampling) for kind in kinds},
            lambda: scorer,
            {**metadata, **settings, "measure": measure, "prompts": texts},
            judge=judge or no_judge,
            samples=samples,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            explored=report_responses,
            given=given,
            state=state,
        )
    return ShiftAnalysis(folder, tokenizer, measure=measure, resamples=resamples)


def _check_numbers(*, report_responses: int, **counts: int) -> None:
    check_whole("report_responses", report_responses, 0)
    for name, value in counts.items():
        check_whole(name, value)


def _check_given(trajectories: Sequence[Trajectory], models: Sequence[Any]) -> None:
    if not any(trajectory.completion_ids for trajectory in trajectories):
        raise ValueError("There is nothing to analyze: the given trajectories have no token.")
    check_lengths(trajectories, models)
