"""One model's responses to the problems of some sets, judged: from a model to a row a response on disk.

Under a folder: `responses/`, a Parquet file a set and model, which readers take as one table. Draws depend on the
seed, the problem and the sample alone, so that models are compared on the same random numbers. Work is cut into units
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
import pyarrow.parquet as pq
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.generators import Generator
from tokenshift.analysis.sampling.requests import Prompt, prompt_groups, requests_of
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.analysis.storage.work_units import join_rows, run_units

SCHEMA = pa.schema(
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
    ]
)


@dataclass(frozen=True)
class Grade:
    """What a response is worth; attributes as the columns of the same names."""

    correct: bool | None
    formatted: bool
    answer: str | None
    vote: int | None


Grader = Callable[[list[int], list[str]], list[Grade]]
"""Grades of completions, as text, of the problems with these ids; given all responses to a problem at once."""


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated.

    Attributes:
        name: in the column `model`.
        tokenizer: its.
        ends: ids at which its responses end.
        generator: makes it ready to sample from; called only if there is something left to sample.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    ends: set[int]
    generator: Callable[[], Generator]


@dataclass(frozen=True)
class ProblemSet:
    """Problems as the model reads them.

    Attributes:
        name: in the column `set`.
        prompts: of the problems.
        grade: of responses to them.
    """

    name: str
    prompts: list[Prompt]
    grade: Grader


def response_file(folder: RunFolder, set_name: str, model: str) -> Path:
    """Where a model's responses to a set are."""
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
    """Sample and grade responses; those that are there already are read back.

    Every process must call it. What responses depend on beside the arguments (the model's weights, the rows of a set,
    the sampling) must stay the same in one folder.

    Args:
        folder: of the run.
        subject: the model.
        sets: the problems.
        samples: responses a problem.
        seed: of the draws, for the column.
        batch_size: responses at once; a unit of work holds as many whole problems as fit, the longest prompts first.
        metadata: of the files.

    Returns:
        Rows of `SCHEMA`, by set, problem and sample.
    """
    state = state or PartialState()
    left = [each for each in sets if not response_file(folder, each.name, subject.name).exists()]
    state.wait_for_everyone()  # all have looked before anything is written
    stage = folder.units(file_name(subject.name))  # another model's are beside it, to be gone on with
    units = [
        (each, group, stage / f"{response_file(folder, each.name, subject.name).stem}-{place:06d}.parquet")
        for each in left
        for place, group in enumerate(prompt_groups(each.prompts, max(1, batch_size // samples)))
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
        with whole_file(file) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
        return sum(map(len, completions))

    run_units([file for _, _, file in units], work, f"sampling from {subject.name}", state=state)
    if state.is_main_process:
        schema = SCHEMA.with_metadata(table_metadata({**metadata, "model": subject.name}))
        for each in left:
            parts = [file for owner, _, file in units if owner is each]
            join_rows(parts, response_file(folder, each.name, subject.name), schema)
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # it is not there, or another model's is in it
            folder.units("").rmdir()
    state.wait_for_everyone()
    return read_responses(folder, [subject.name], [each.name for each in sets])


def read_responses(folder: RunFolder, models: Sequence[str], sets: Sequence[str]) -> pa.Table:
    """Rows of `SCHEMA` that `evaluate_model` left, by model, then set."""
    files = [response_file(folder, each, model) for model in models for each in sets]
    return pa.concat_tables([pq.read_table(file, schema=SCHEMA) for file in files])
