"""Arguments of the shift analysis, and all of it that can be looked at before a model is loaded."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from filelock import FileLock

from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.generators import Generator, Sampling
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import Judge
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.token_table.scoring import PairScorer
from tokenshift.recipes.command_line.output_folder import LOOSE, data_content, model_content
from tokenshift.recipes.command_line.output_folder import open_folder as open_folder
from tokenshift.recipes.inputs.judging import encoded_prompts, judge_of, no_judge, response_room
from tokenshift.recipes.inputs.models import ModelSource, find_model
from tokenshift.recipes.inputs.problems import load_problem_set
from tokenshift.recipes.inputs.sampling import (
    LONGEST,
    SamplingArguments,
    check_machine,
    generator_maker,
    ready_model,
)
from tokenshift.rewards import load_reward


@dataclass
class ShiftArguments(SamplingArguments):
    """
    Arguments of the recipes that compare a base with the model after RL.

    Parameters:
        base_model, rl_model (`str`):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters.
        dataset_name, dataset_config, dataset_split, prompt_column, solution_column:
            Problems.
        top_p (`float`):
            Also truncates the distributions of `js_top_p`.
        batch_tokens (`int`):
            Tokens scored at once.
    """

    base_model: str = field(default="pocket", metadata={"help": "The model before RL."})
    rl_model: str = field(default="outputs/pocket/model", metadata={"help": "The model after RL."})
    dataset_name: str = field(
        default="pocket", metadata={"help": "pocket, sums, a .json/.jsonl/.parquet/.csv file, a folder or a hub name."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of hub data."})
    dataset_split: str | None = field(default=None, metadata={"help": "Split; by default one not trained on."})
    prompt_column: str = field(default="prompt", metadata={"help": "Column with the prompts."})
    solution_column: str | None = field(default="solution", metadata={"help": "Column with the gold answers."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampling, and of the compared distributions."})
    top_p: float = field(default=0.7, metadata={"help": "Of sampling, and of the truncated JS."})
    batch_tokens: int = field(default=8192, metadata={"help": "Tokens scored at once by each process."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tokens < 1:
            raise ValueError(f"batch_tokens={self.batch_tokens} must be at least 1.")
        if self.solution_column is not None and self.solution_column.lower() in ("none", "null", ""):
            self.solution_column = None


@dataclass
class ShiftJob:
    """An analysis ready to begin: models found but not loaded, problems loaded.

    Attributes:
        args: of the command line.
        base, rl: the models.
        data: the problems' rows; row i is problem i.
        prompts: the same as the models read them.
        judge: verdicts.
        folder: where results go.
        given: trajectories that were read from a file, and their prompts as text by problem.
        lock: held on the folder by the main process.
    """

    args: Any
    base: ModelSource
    rl: ModelSource
    data: Dataset
    prompts: list[Prompt]
    judge: Judge
    folder: RunFolder
    given: tuple[list[Trajectory], dict[int, str]] | None = None
    lock: FileLock | None = None

    def generator(self, source: ModelSource, sampling: Sampling | None = None) -> Callable[[], Generator]:
        """Makes a policy ready to sample from."""
        return generator_maker(source, self.args, sampling)

    def scorer(self, rl: ModelSource | None = None, **settings: Any) -> Callable[[], PairScorer]:
        """Makes both models ready to score with."""
        settings = {"temperature": self.args.temperature, "top_p": self.args.top_p} | settings
        source = rl or self.rl

        def ready() -> PairScorer:
            pair = PairScorer(self.load(self.base), self.load(source), self.base.tokenizer, **settings)
            if pair.note and PartialState().is_main_process:
                print(pair.note)
            return pair

        return ready

    def close(self) -> None:
        """Let others use the folder; the end of the process does so too."""
        if self.lock is not None:
            self.lock.release()

    def load(self, source: ModelSource) -> Any:
        """A model on this process's device."""
        return ready_model(source, self.args)

    def metadata(self, **more: Any) -> dict[str, Any]:
        """What a table's rows come from."""
        if self.given is None:
            sampled = {"dataset": self.args.dataset_name, "samples": self.args.samples, **asdict(self.args.sampling)}
        else:  # how the file's responses were sampled is not known
            sampled = {"temperature": self.args.temperature, "top_p": self.args.top_p}
        return {
            "base_model": self.base.name,
            "base_revision": self.base.revision or getattr(self.base.config, "_commit_hash", None),
            "rl_model": self.rl.name,
            "rl_revision": self.rl.revision or getattr(self.rl.config, "_commit_hash", None),
            **sampled,
            "prompts": {prompt.problem_id: prompt.text for prompt in self.prompts},
            **more,
        }


def prepare_shift(args: ShiftArguments, *, problems: bool = True) -> ShiftJob:
    """Check what can be checked without loading a model.

    Args:
        args: of the command line.
        problems: whether problems are needed; responses from a file bring their own.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    state = check_machine(args)
    load_reward(args.reward_func)  # an unknown one is named before all else
    base, rl = find_model("base_model", args.base_model), find_model("rl_model", args.rl_model)
    sizes = [source.config.get_text_config().vocab_size for source in (base, rl)]
    try:
        shared_vocabulary(base.tokenizer, rl.tokenizer, *sizes)
    except ValueError as error:
        raise ValueError(f"base_model={args.base_model!r} and rl_model={args.rl_model!r}: {error}") from error
    if not problems:
        return ShiftJob(args, base, rl, Dataset.from_dict({}), [], no_judge, RunFolder(Path(args.output_dir)))
    with state.main_process_first():
        data = load_problem_set(
            args.dataset_name,
            config=args.dataset_config,
            split=args.dataset_split,
            size=args.size,
            prompt_column=args.prompt_column,
            solution_column=args.solution_column,
            system_prompt=args.system_prompt,
            prompt_template=args.prompt_template,
        )
    prompts = encoded_prompts(data, base)
    room = response_room(prompts, base, args.max_new_tokens)
    args.max_new_tokens = args.max_new_tokens or (LONGEST if room is None else min(LONGEST, room))
    judge = judge_of(data, args.reward_func)
    return ShiftJob(args, base, rl, data, prompts, judge, RunFolder(Path(args.output_dir)))


def row_settings(job: ShiftJob, *loose: str) -> dict[str, Any]:
    """The arguments that rows depend on, and hashes of what the names among them stand for.

    Args:
        job: the analysis.
        loose: arguments of the recipe's own on which no row depends.
    """
    found = {name: value for name, value in asdict(job.args).items() if name not in (*LOOSE, *loose)}
    return found | {
        "base_model_content": model_content(job.base),
        "rl_model_content": model_content(job.rl),
        "dataset_content": data_content(job.data),
    }
