"""Arguments of the evaluation, and everything about it that can be checked before a model is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from tokenshift.analysis.evaluation.responses import Grader, ProblemSet, Subject
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.recipes.command_line.given_options import refuse_without_effect
from tokenshift.recipes.command_line.output_folder import UNRECORDED_ARGUMENTS, FolderOwner, open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.tracking import TrackedArguments
from tokenshift.recipes.inputs.contents import data_content, model_content
from tokenshift.recipes.inputs.device_maps import map_without_effect
from tokenshift.recipes.inputs.engines import TRANSFORMERS, check_engine, engine_facts, engine_without_effect
from tokenshift.recipes.inputs.judging import (
    encoded_prompts,
    grader_of,
    grading_rule,
    response_room,
    template_without_effect,
    verification_without_effect,
)
from tokenshift.recipes.inputs.models import ModelSource, find_model, model_ends, weights_dtype
from tokenshift.recipes.inputs.plan_arguments import plan_without_effect
from tokenshift.recipes.inputs.problem_arguments import MADE_WITHOUT, ProblemArguments, value_or_none
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.inputs.sampling import (
    LONGEST_RESPONSE,
    SamplingArguments,
    check_device_map,
    check_machine,
    generator_maker,
)
from tokenshift.recipes.jobs.analysis.dry_run import plan_evaluation
from tokenshift.recipes.jobs.analysis.early import BY_SET, check_measures, set_name
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis
from tokenshift.rewards import load_reward
from tokenshift.rewards.registry import ACCURACY_REWARDS

KS = (1, 4, 8)
"""Numbers of responses k of pass@k and majority@k where the user names none."""

EXTENDABLE_ARGUMENTS = ("model", "against", "datasets", *BY_SET, "ks", "resamples")
"""Arguments that may differ when a run is continued: a row depends on no model and set but its own."""


@dataclass
class EvaluationArguments(TrackedArguments, SamplingArguments):
    """
    Parameters:
        model, against (`str`, *optional*):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters. The second is
            what the first is compared with. Without either, pocket's trained model and its base.
        datasets (`list[str]`):
            The sets: `pocket`, `sums`, files, folders or hub names.
        dataset_config, dataset_split, prompt_column, solution_column (`list[str]`, *optional*):
            One value for all sets, or one per set; `none` for the default, or for a set without gold answers.
        answer_extractor (`str`, *optional*):
            Takes the answer of a response for majority voting and the reports; when not given, it is the extractor
            that the reward names. A reward that names none has no majority.
        ks (`list[int]`, *optional*):
            The k of pass@k and majority@k; when not given, 1, 4, 8 as far as there are samples, and their number.
        resamples (`int`):
            Resamples of the bootstrap.
    """

    model: str | None = field(default=None, metadata={"help": "The model; pocket's trained one when not given."})
    against: str | None = field(default=None, metadata={"help": "A model to compare it with; pocket's has its base."})
    datasets: list[str] = field(
        default_factory=lambda: ["pocket"],
        metadata={"help": "pocket, sums, .json/.jsonl/.parquet/.csv files, folders or hub names."},
    )
    dataset_config: list[str] | None = field(
        default=None, metadata={"help": "Configuration of hub data; one, or one per set."}
    )
    dataset_split: list[str] | None = field(
        default=None, metadata={"help": "Split, one or one per set; by default one not trained on."}
    )
    prompt_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the prompts, prompt by default; one, or one per set."}
    )
    solution_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the gold answers, solution by default; one, or one per set."}
    )
    answer_extractor: str | None = field(
        default=None,
        metadata={"help": "Takes the answers for majority@k: math, or a dotted path; the reward's by default."},
    )
    samples: int = field(default=8, metadata={"help": "Responses per problem."})
    ks: list[int] | None = field(
        default=None, metadata={"help": "The k of pass@k and majority@k; 1 4 8 and the number of samples by default."}
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
        check_measures(self)

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        reasons = verification_without_effect([self.reward_func])
        if set(self.datasets) <= set(MADE):
            reason = f"{' and '.join(self.datasets)} is made as it is; leave it out, or name data of your own."
            reasons |= dict.fromkeys(MADE_WITHOUT, reason)
        if self.use_vllm:
            reason = "vLLM loads the models by their own configs; leave it out, or use_vllm."
            reasons |= dict.fromkeys(("dtype", "attn_implementation", "device_map", "offload_folder"), reason)
        reasons |= plan_without_effect(self)
        return reasons | map_without_effect(self.device_map) | engine_without_effect(self.engine)

    @property
    def made_beside_others(self) -> list[str]:
        """The made sets, where there are others too; they take no template and no system prompt."""
        made = [name for name in self.datasets if name in MADE]
        return made if len(made) < len(self.datasets) else []

    def of_set(self, name: str, index: int) -> str | None:
        """The value of an argument of `BY_SET` for one of the sets; None where it is left open.

        Args:
            name: the argument.
            index: which of `datasets`.
        """
        values = getattr(self, name)
        return None if values is None else value_or_none(str(values[index if len(values) > 1 else 0]))

    def solution_of(self, index: int) -> str | None:
        """The column with the gold answers of one of the sets; None where the set is said to have none."""
        return self.of_set("solution_column", index) or ("solution" if self.solution_column is None else None)

    def grader(self, data: Dataset) -> Grader:
        """The grader of responses to these problems.

        Raises:
            ValueError: as `grader_of` does.
        """
        return grader_of(data, self.reward_func, self.answer_extractor, self.correct_threshold)

    def problems_of(self, index: int) -> Dataset:
        """The problems of one of the sets; made ones beside others do not take what is given for all sets.

        Raises:
            ValueError: as `load_problem_set` does.
        """
        if self.datasets[index] in self.made_beside_others:
            values = {name: self.of_set(name, index) for name in BY_SET if len(getattr(self, name) or ()) > 1}
            given = {name: value for name, value in values.items() if value is not None and name != "dataset_split"}
            arguments = ProblemArguments(dataset_name=self.datasets[index], **given)
            return arguments.problem_set(self.of_set("dataset_split", index), self.size, setting="datasets")
        arguments = ProblemArguments(
            dataset_name=self.datasets[index],
            dataset_config=self.of_set("dataset_config", index),
            prompt_column=self.of_set("prompt_column", index) or "prompt",
            solution_column=self.solution_of(index),
            system_prompt=self.system_prompt,
            prompt_template=self.prompt_template,
        )
        return arguments.problem_set(self.of_set("dataset_split", index), self.size, setting="datasets")


@dataclass
class EvaluationJob(FolderOwner):
    """An evaluation ready to begin: models found but not loaded, problems loaded.

    Attributes:
        args: the recipe's arguments.
        models: displayed name -> model; the one that the first is compared with comes second.
        data: displayed name of a set -> its rows; row i is problem i.
        prompts: (model, set) -> the prompts as the model reads them.
        notes: sentences that a reader of the comparison must know.
        folder: where results go.
    """

    args: Any
    models: dict[str, ModelSource]
    data: dict[str, Dataset]
    prompts: dict[tuple[str, str], list[Prompt]]
    notes: list[str]
    folder: RunFolder

    def subject(self, name: str) -> Subject:
        """The model of this name, to be loaded when it is needed."""
        source = self.models[name]
        generator = generator_maker(source, self.args, longest=self.longest(name))
        return Subject(name, source.tokenizer, model_ends(source), generator)

    def longest(self, model: str) -> int:
        """Tokens of a model's longest prompt and its response."""
        prompts = (prompt for (name, _), of_set in self.prompts.items() if name == model for prompt in of_set)
        return max((len(prompt.ids) for prompt in prompts), default=0) + int(self.args.max_new_tokens)

    def sets(self, model: str) -> list[ProblemSet]:
        """The sets as the model of this name reads them."""
        return [
            ProblemSet(name, self.prompts[model, name], self.args.grader(rows)) for name, rows in self.data.items()
        ]

    def metadata(self) -> dict[str, Any]:
        """Metadata of the tables: the models, sets and sampling that their rows come from."""
        return {
            "models": {name: source.revision or model_content(source) for name, source in self.models.items()},
            "sets": {name: len(rows) for name, rows in self.data.items()},
            "samples": self.args.samples,
            **asdict(self.args.sampling),
            "dtype": weights_dtype(self.models.values(), self.args.dtype),
            **grading_rule(self.args.reward_func, self.args.answer_extractor, self.args.correct_threshold),
            "engine": "vllm" if self.args.use_vllm else self.args.engine,
            **engine_facts(self.args),
        }


def prepare(arguments: list[str] | None = None) -> EvaluationJob | PlannedAnalysis:
    """Parse, check, find the models, load the problems; or plan alone.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((EvaluationArguments,), arguments)[0]
    if args.dry_run:
        return plan_evaluation(args, lambda: list(problem_sets(args).values()))
    return prepare_evaluation(args)


def prepare_evaluation(args: EvaluationArguments) -> EvaluationJob:
    """Check what can be checked without loading a model.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    state = check_machine(args)
    load_reward(args.reward_func)  # an unknown one is named before all else
    models, notes = _models(args)
    check_device_map(args, models.values())
    for name in ("prompt_template", "system_prompt"):
        if getattr(args, name) is not None and args.made_beside_others:
            notes.append(f"{name} is not for {' and '.join(args.made_beside_others)}, which is made as it is.")
    with state.main_process_first():
        data = problem_sets(args)
    for rows in data.values():
        args.grader(rows)  # mistakes in the reward and the extractor are named before a model is loaded
    if args.reward_func in ACCURACY_REWARDS and not any("solution" in rows.column_names for rows in data.values()):
        reason = "no set has gold answers, so nothing is judged; name their column by --solution_column."
        refuse_without_effect((args,), dict.fromkeys(("correct_threshold", "answer_extractor"), reason))
    refuse_without_effect((args,), template_without_effect(data.values()))
    prompts: dict[tuple[str, str], list[Prompt]] = {}
    rooms = [LONGEST_RESPONSE]
    for model, source in models.items():
        for name, rows in data.items():
            try:
                prompts[model, name] = encoded_prompts(rows, source, args.template_kwargs)
                room = response_room(prompts[model, name], source, args.max_new_tokens)
            except ValueError as error:
                raise ValueError(f"datasets={name!r} and model {model!r}: {error}") from error
            rooms += [] if room is None else [room]
    args.max_new_tokens = args.max_new_tokens or min(rooms)
    job = EvaluationJob(args, models, data, prompts, notes, RunFolder(Path(args.output_dir)))
    left_out = (*UNRECORDED_ARGUMENTS, *EXTENDABLE_ARGUMENTS)
    settings = {name: value for name, value in asdict(args).items() if name not in left_out}
    if args.answer_extractor is None:
        del settings["answer_extractor"]  # as in folders that were made before it could be chosen
    if args.chat_template_kwargs is None:
        del settings["chat_template_kwargs"]
    if args.correct_threshold == CORRECT:
        del settings["correct_threshold"]  # likewise
    if args.engine == TRANSFORMERS:
        del settings["engine"]
    for name, source in models.items():
        check_engine(args, args.dtype, (source,), job.longest(name), pair=False)
    parts = {f"model {name}": model_content(source) for name, source in models.items()}
    parts |= set_contents(data)
    tokens = sum(map(len, prompts.values())) * args.samples * args.max_new_tokens
    open_folder(job, settings, parts, sampled=tokens)
    return job


def _models(args: EvaluationArguments) -> tuple[dict[str, ModelSource], list[str]]:
    """The models by displayed name, and what a reader must know about the comparison of the two."""
    named = {"model": str(args.model)} | ({} if args.against is None else {"against": args.against})
    trust = args.trust_remote_code
    sources = {setting: find_model(setting, name, trust_remote_code=trust) for setting, name in named.items()}
    for setting, source in sources.items():
        if not model_ends(source):
            raise ValueError(
                f"{setting}={source.name!r} has no end token: no response would end. Set eos_token_id in a "
                "generation_config.json, or the tokenizer's eos_token."
            )
    if "against" not in sources:
        return {sources["model"].name: sources["model"]}, []
    model, against = sources.values()
    notes = []
    if model_content(model) == model_content(against) and model.revision == against.revision:
        notes.append("Both are the same model: with the same random numbers their responses are the same.")
    if model.tokenizer.get_vocab() != against.tokenizer.get_vocab():
        notes.append(
            "The models have different tokenizers: each reads its own prompts, lengths and the limit on them are in "
            "each one's own tokens, and random numbers are shared by place, not by word."
        )
    displayed = f"{against.name} (again)" if model.name == against.name else against.name
    return {model.name: model, displayed: against}, notes


def set_contents(sets: Mapping[str, Dataset]) -> dict[str, str]:
    """Hashes of the sets' problems: the name that a set has among the `parts` of the folder's settings -> hash."""
    return {f"set {name}": data_content(rows) for name, rows in sets.items()}


def problem_sets(args: EvaluationArguments) -> dict[str, Dataset]:
    """The sets by displayed name: the data's name, with its configuration and split where these are given.

    Raises:
        ValueError: for data that cannot be read, or a set that is named twice.
    """
    sets: dict[str, Dataset] = {}
    for index, dataset in enumerate(args.datasets):
        name = set_name(dataset, args.of_set("dataset_config", index), args.of_set("dataset_split", index))
        if name in sets:
            raise ValueError(f"datasets names {name!r} twice.")
        try:
            sets[name] = args.problems_of(index)
        except ValueError as error:
            raise ValueError(str(error) if "datasets=" in str(error) else f"datasets={name!r}: {error}") from error
    return sets
