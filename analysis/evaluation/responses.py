"""One model's responses to the problems of some sets, judged: from a model to one row per response on disk.

A folder gets `responses/`, with one Parquet file per (set, model), which readers take as one table. Draws depend on
the seed, the problem and the sample alone: models share common random numbers. Work is cut into units
whose contents depend on the settings alone: a run that was stopped, that had another number of processes, or that was
given more models or sets later ends in the same rows, bit for bit on one kind of machine.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.generators import Generator
from tokenshift.analysis.sampling.requests import Prompt, prompt_groups, requests_of
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.parquet_files import read_parquet, write_parquet
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.work_units import join_rows, run_units

RESPONSE_SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("model", pa.string()),
        ("problem_id", pa.int64()),
        ("sample_id", pa.int64()),
        ("seed", pa.int64()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),  # with the end token, where the model gave one
        ("text", pa.string()),  # of the completion
        ("length", pa.int32()),  # of the completion, tokens
        ("truncated", pa.bool_()),  # no end token within max_new_tokens
        ("formatted", pa.bool_()),  # as format_reward judges
        ("correct", pa.bool_()),  # null where nothing judged
        ("answer", pa.string()),  # as accuracy_reward takes it; null without one
        ("vote", pa.int32()),  # which of the problem's different answers it is; null without one
        ("reward", pa.float64()),  # null where nothing judged, and in files that were made before
    ]
)


@dataclass(frozen=True)
class Grade:
    """The judgement of a response; attributes as the columns of `RESPONSE_SCHEMA` with the same names."""

    correct: bool | None
    formatted: bool
    answer: str | None
    vote: int | None
    reward: float | None = None


Grader = Callable[[list[int], list[str]], list[Grade]]
"""Grades completions: (problem ids, texts) -> one grade each. It is given all responses to a problem at once."""


@dataclass(frozen=True)
class RewardGrader:
    """A grader that says what it goes by; it is called as any `Grader`.

    Attributes:
        grade: Grades completions.
        rule: What the grades come from, for the metadata: `reward`, its name; `correct_threshold`, the lowest reward
            of a correct response; `answer_extractor`, whose answers vote, None where no answers are taken.
    """

    grade: Grader
    rule: Mapping[str, Any]

    def __call__(self, rows: list[int], texts: list[str]) -> list[Grade]:
        return self.grade(rows, texts)


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated.

    Attributes:
        name: The value of the column `model`.
        tokenizer: The model's tokenizer.
        ends: Token ids at which the model's responses end.
        generator: Loads the model and returns what samples from it; called only if something is left to sample.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    ends: set[int]
    generator: Callable[[], Generator]


@dataclass(frozen=True)
class ProblemSet:
    """Problems as the model reads them.

    Attributes:
        name: The value of the column `set`.
        prompts: The problems' prompts.
        grade: Grades responses to the problems.
    """

    name: str
    prompts: list[Prompt]
    grade: Grader


def response_file(folder: RunFolder, set_name: str, model: str) -> Path:
    """The file with a model's responses to a set."""
    return folder.path / "responses" / f"{file_name(set_name)}--{file_name(model)}.parquet"


def evaluate_model(
    folder: RunFolder,
    subject: Subject,
    sets: Sequence[ProblemSet],
    *,
    samples: int,
    seed: int,
    batch_size: int,
    metadata: Mapping[str, Any],
    state: PartialState | None = None,
) -> pa.Table:
    """Sample and grade responses; responses that are in the folder already are read back.

    Every process must call it. What responses depend on beside the arguments (the model's weights, the rows of a set,
    the sampling) must stay the same in one folder.

    Args:
        folder: The run's folder.
        subject: The model.
        sets: The problems.
        samples: Number of responses per problem.
        seed: Seed of the draws, for the column `seed`.
        batch_size: Number of responses sampled at once; a unit of work holds as many whole problems as fit, the
            longest prompts first.
        metadata: What the responses come from, for the files' metadata.
        state: The processes that share the work; a new `PartialState` if None.

    Returns:
        Rows of `RESPONSE_SCHEMA`, by set, problem and sample.
    """
    state = state or PartialState()
    missing = [problems for problems in sets if not response_file(folder, problems.name, subject.name).exists()]
    state.wait_for_everyone()  # every process has looked before one of them writes
    stage = folder.units(file_name(subject.name))  # units of another model that was stopped may be beside it
    units = [
        (problems, group, stage / f"{response_file(folder, problems.name, subject.name).stem}-{number:06d}.parquet")
        for problems in missing
        for number, group in enumerate(prompt_groups(problems.prompts, max(1, batch_size // samples)))
    ]
    ready: list[Generator] = []

    def work(unit: int, file: Path) -> int:
        if not ready:
            ready.append(subject.generator())
        problems, group, _ = units[unit]
        requests = requests_of(group, samples)
        completions: list[list[int]] = []
        for start in range(0, len(requests), batch_size):
            completions += ready[0](requests[start : start + batch_size])
        texts = subject.tokenizer.batch_decode(completions, skip_special_tokens=True)
        grades = problems.grade([request.row[0] for request in requests], texts)
        rows = [
            {
                "set": problems.name,
                "model": subject.name,
                "problem_id": request.row[0],
                "sample_id": request.row[1],
                "seed": seed,
                "prompt_ids": request.prompt_ids,
                "completion_ids": ids,
                "text": text,
                "length": len(ids),
                "truncated": not ids or ids[-1] not in subject.ends,
                **asdict(grade),
            }
            for request, ids, text, grade in zip(requests, completions, texts, grades, strict=True)
        ]
        write_parquet(file, pa.Table.from_pylist(rows, schema=RESPONSE_SCHEMA))
        return sum(map(len, completions))

    run_units([file for _, _, file in units], work, f"sampling from {subject.name}", state=state)
    if state.is_main_process:
        schema = RESPONSE_SCHEMA.with_metadata(table_metadata({**metadata, "model": subject.name}))
        for problems in missing:
            parts = [file for owner, _, file in units if owner is problems]
            join_rows(parts, response_file(folder, problems.name, subject.name), schema)
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # the folder does not exist, or has units of another model
            folder.units("").rmdir()
    state.wait_for_everyone()
    return read_responses(folder, [subject.name], [problems.name for problems in sets])


def read_responses(folder: RunFolder, models: Sequence[str], sets: Sequence[str]) -> pa.Table:
    """Rows of `RESPONSE_SCHEMA` that `evaluate_model` left, by model, then set."""
    files = [response_file(folder, set_name, model) for model in models for set_name in sets]
    return pa.concat_tables([read_parquet(file, schema=RESPONSE_SCHEMA) for file in files])
