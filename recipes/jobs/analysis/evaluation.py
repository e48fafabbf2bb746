"""Arguments of the evaluation, and what can be looked at before a model is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from filelock import FileLock

from tokenshift.analysis.evaluation.responses import ProblemSet, Subject
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes.command_line.output_folder import LOOSE, data_content, model_content, open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.judging import answer_extractor_of, encoded_prompts, grader_of, response_room
from tokenshift.recipes.inputs.models import ModelSource, find_model, model_ends
from tokenshift.recipes.inputs.problems import load_problem_set
from tokenshift.recipes.inputs.sampling import LONGEST, SamplingArguments, check_machine, generator_maker
from tokenshift.rewards import load_reward

KS = (1, 4, 8)

BY_SET = ("dataset_config", "dataset_split", "prompt_column", "solution_column")
"""Arguments with a value for all sets, or one a set."""

SHOWN = ("model", "against", "datasets", *BY_SET, "ks", "resamples")
"""Arguments that may differ when a run is gone on with: a row depends on its own model and set alone."""

NONE = ("none", "null", "")


@dataclass
class EvaluationArguments(SamplingArguments):
    """
    Parameters:
        model, against (`str`, *optional*):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters. The second is
            what the first is compared with. Without either, pocket's trained model and its base.
        datasets (`list[str]`):
            The sets: `pocket`, `sums`, files, folders or hub names.
        dataset_config, dataset_split, prompt_column, solution_column (`list[str]`, *optional*):
            One for all sets, or one a set; `none` for the default, or for a set without gold answers.
        answer_extractor (`str`, *optional*):
            What majority voting and the reports count as a response's answer; that of the reward when not given.
        ks (`list[int]`, *optional*):
            Of pass@k and majority@k; 1, 4, 8 as far as there are samples, and their number, when not given.
        resamples (`int`):
            Of the bootstrap.
    """

    model: str | None = field(default=None, metadata={"help": "The model; pocket's trained one when not given."})
    against: str | None = field(default=None, metadata={"help": "A model to compare it with; pocket's has its base."})
    datasets: list[str] = field(
        default_factory=lambda: ["pocket"],
        metadata={"help": "pocket, sums, .json/.jsonl/.parquet/.csv files, folders or hub names."},
    )
    dataset_config: list[str] | None = field(default=None, metadata={"help": "Of hub data; one, or one a set."})
    dataset_split: list[str] | None = field(
        default=None, metadata={"help": "Split, one or one a set; by default one not trained on."}
    )
    prompt_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the prompts, prompt by default; one, or one a set."}
    )
    solution_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the gold answers, solution by default; one, or one a set."}
    )
    answer_extractor: str | None = field(
        default=None,
        metadata={"help": "Takes the answers for majority@k: math, or a dotted path; the reward's own by default."},
    )
    samples: int = field(default=8, metadata={"help": "Responses a problem."})
    ks: list[int] | None = field(
        default=None, metadata={"help": "Of pass@k and majority@k; 1 4 8 and the number of samples by default."}
    )
    batch_size: int = field(default=64, metadata={"help": "Responses sampled at once by each process."})
    resamples: int = field(default=10_000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/evaluation", metadata={"help": "Where results go."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None:
            self.model, self.against = "outputs/pocket/model", self.against or "pocket"
        if not self.datasets:
            raise ValueError("datasets is empty.")
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples} must be at least 1.")
        if self.ks is None:
            self.ks = [k for k in KS if k <= self.samples] + [self.samples]
        if not self.ks:
            raise ValueError("ks is empty.")
        self.ks = sorted(set(self.ks))
        for k in self.ks:
            if not 1 <= k <= self.samples:
                raise ValueError(f"ks has {k}, which must be at least 1, and at most samples={self.samples}.")
        for name in BY_SET:
            given = getattr(self, name)
            if given is not None and len(given) not in (1, len(self.datasets)):
                raise ValueError(
                    f"{name} has {len(given)} values for {len(self.datasets)} datasets; give one, or one each."
                )

    def of_set(self, name: str, place: int) -> str | None:
        """An argument of `BY_SET` for a set, by the set's place; None where it is left open."""
        given = getattr(self, name)
        if given is None:
            return None
        value = str(given[place if len(given) > 1 else 0])
        return None if value.lower() in NONE else value

    def solution_of(self, place: int) -> str | None:
        """The column with a set's gold answers, by the set's place; None where it is said to have none."""
        return self.of_set("solution_column", place) or ("solution" if self.solution_column is None else None)


@dataclass
class EvaluationJob:
    """An evaluation ready to begin: models found but not loaded, problems loaded.

    Attributes:
        args: of the command line.
        models: by the names they are shown by, the one to be compared with last.
        data: rows of the sets by the names they are shown by; row i is problem i.
        prompts: by model and set.
        notes: what a reader must know of the comparison.
        folder: where results go.
        lock: held on the folder by the main process.
    """

    args: Any
    models: dict[str, ModelSource]
    data: dict[str, Dataset]
    prompts: dict[tuple[str, str], list[Prompt]]
    notes: list[str]
    folder: RunFolder
    lock: FileLock | None = None

    def subject(self, name: str) -> Subject:
        """A model, to be loaded when it is needed."""
        source = self.models[name]
        return Subject(name, source.tokenizer, model_ends(source), generator_maker(source, self.args))

    def sets(self, model: str) -> list[ProblemSet]:
        """The sets as a model reads them."""
        return [
            ProblemSet(
                name, self.prompts[model, name], grader_of(rows, self.args.reward_func, self.args.answer_extractor)
            )
            for name, rows in self.data.items()
        ]

    def metadata(self) -> dict[str, Any]:
        """What the rows come from."""
        extractor = answer_extractor_of(self.args.reward_func, self.args.answer_extractor).name
        return {
            "models": {name: source.revision or model_content(source) for name, source in self.models.items()},
            "sets": {name: len(rows) for name, rows in self.data.items()},
            "samples": self.args.samples,
            **asdict(self.args.sampling),
            "reward": self.args.reward_func,
            **({} if extractor == "math" else {"answer_extractor": extractor}),
            "engine": "vllm" if self.args.use_vllm else "transformers",
        }

    def close(self) -> None:
        """Let others use the folder; the end of the process does so too."""
        if self.lock is not None:
            self.lock.release()


def prepare(arguments: list[str] | None = None) -> EvaluationJob:
    """Parse, check, find the models, load the problems.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    return prepare_evaluation(parse_into((EvaluationArguments,), arguments)[0])


def prepare_evaluation(args: EvaluationArguments) -> EvaluationJob:
    """Check what can be checked without loading a model.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    state = check_machine(args)
    load_reward(args.reward_func)  # an unknown one is named before all else
    models, notes = _models(args)
    with state.main_process_first():
        data = problem_sets(args)
    for rows in data.values():
        grader_of(
            rows, args.reward_func, args.answer_extractor
        )  # mistakes in either are named before a model is loaded
    prompts: dict[tuple[str, str], list[Prompt]] = {}
    rooms = [LONGEST]
    for model, source in models.items():
        for name, rows in data.items():
            try:
                prompts[model, name] = encoded_prompts(rows, source)
                room = response_room(prompts[model, name], source, args.max_new_tokens)
            except ValueError as error:
                raise ValueError(f"datasets={name!r} and model {model!r}: {error}") from error
            rooms += [] if room is None else [room]
    args.max_new_tokens = args.max_new_tokens or min(rooms)
    job = EvaluationJob(args, models, data, prompts, notes, RunFolder(Path(args.output_dir)))
    settings = {name: value for name, value in asdict(args).items() if name not in (*LOOSE, *SHOWN)}
    if args.answer_extractor is None:
        del settings["answer_extractor"]  # as in folders that were made before it could be chosen
    parts = {f"model {name}": model_content(source) for name, source in models.items()}
    parts |= set_contents(data)
    open_folder(job, settings, parts)
    return job


def _models(args: EvaluationArguments) -> tuple[dict[str, ModelSource], list[str]]:
    """Models by name, and what is to be said of the two."""
    named = {"model": str(args.model)} | ({} if args.against is None else {"against": args.against})
    found = {setting: find_model(setting, name) for setting, name in named.items()}
    for setting, source in found.items():
        if not model_ends(source):
            raise ValueError(
                f"{setting}={source.name!r} has no end token: no response would end. Set eos_token_id in a "
                "generation_config.json, or the tokenizer's eos_token."
            )
    if "against" not in found:
        return {found["model"].name: found["model"]}, []
    model, against = found.values()
    notes = []
    if model_content(model) == model_content(against) and model.revision == against.revision:
        notes.append("Both are the same model: with the same random numbers their responses are the same.")
    if model.tokenizer.get_vocab() != against.tokenizer.get_vocab():
        notes.append(
            "The models have different tokenizers: each reads its own prompts, lengths and the limit on them are in "
            "each one's own tokens, and random numbers are shared by place, not by word."
        )
    again = f"{against.name} (again)" if model.name == against.name else against.name
    return {model.name: model, again: against}, notes


def set_contents(sets: Mapping[str, Dataset]) -> dict[str, str]:
    """Hashes of the sets' problems, by their names among the parts of the folder's settings."""
    return {f"set {name}": data_content(rows) for name, rows in sets.items()}


def problem_sets(args: EvaluationArguments) -> dict[str, Dataset]:
    """Rows of the sets by name: that of the data, with its configuration and split where these are given.

    Raises:
        ValueError: for data that cannot be read, or a set that is named twice.
    """
    found: dict[str, Dataset] = {}
    for place, dataset in enumerate(args.datasets):
        config, split, prompt = (args.of_set(name, place) for name in BY_SET[:3])
        name = dataset + (f"/{config}" if config else "") + (f":{split}" if split else "")
        if name in found:
            raise ValueError(f"datasets names {name!r} twice.")
        try:
            found[name] = load_problem_set(
                dataset,
                config=config,
                split=split,
                size=args.size,
                prompt_column=prompt or "prompt",
                solution_column=args.solution_of(place),
                system_prompt=args.system_prompt,
                prompt_template=args.prompt_template,
                setting="datasets",
            )
        except ValueError as error:
            raise ValueError(str(error) if "datasets=" in str(error) else f"datasets={name!r}: {error}") from error
    return found
