"""Arguments of the shift analyses, and everything about them that can be checked before a model is loaded."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from datasets import Dataset

from tokenshift.analysis.sampling.generators import Generator, Sampling
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.responses import Judge
from tokenshift.analysis.sampling.token_ids import check_context
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.analysis.token_table.kept_statistics import KEPT, KeepingGenerator
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, check_measure
from tokenshift.analysis.token_table.one_at_a_time import OneAtATime
from tokenshift.analysis.token_table.scored_run import STATES
from tokenshift.analysis.token_table.scoring import PairScorer, Scorer
from tokenshift.analysis.token_table.spilled_states import SpilledStates, StatesSize
from tokenshift.recipes.command_line.given_options import refuse_without_effect
from tokenshift.recipes.command_line.output_folder import UNRECORDED_ARGUMENTS, FolderOwner
from tokenshift.recipes.inputs.contents import data_content, model_content
from tokenshift.recipes.inputs.device_maps import map_without_effect
from tokenshift.recipes.inputs.engines import (
    TRANSFORMERS,
    VLLM,
    check_engine,
    engine_facts,
    engine_starter,
    engine_without_effect,
)
from tokenshift.recipes.inputs.judging import (
    encoded_prompts,
    judge_of,
    no_judge,
    response_room,
    template_without_effect,
    verification_without_effect,
)
from tokenshift.recipes.inputs.models import (
    ModelSource,
    find_model,
    model_ends,
    require_shared_vocabulary,
    weights_dtype,
)
from tokenshift.recipes.inputs.plan_arguments import plan_without_effect
from tokenshift.recipes.inputs.problem_arguments import ProblemArguments
from tokenshift.recipes.inputs.sampling import (
    LONGEST_RESPONSE,
    SamplingArguments,
    check_device_map,
    check_machine,
    generator_maker,
    ready_model,
)
from tokenshift.rewards import load_reward

if TYPE_CHECKING:
    from tokenshift.analysis.vllm_engine.engine import VLLMEngine


@dataclass
class ShiftArguments(SamplingArguments, ProblemArguments):
    """
    The base and the model after RL, and how they are compared.

    Parameters:
        base_model, rl_model (`str`):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters.
        dataset_split (`str`, *optional*):
            The split of the problems.
        top_p (`float`):
            The nucleus of sampling, to which `js_top_p` truncates both distributions.
        batch_tokens (`int`):
            Tokens that are scored at once.
        one_model_at_a_time (`bool`):
            Whether the base scores first and is freed before the other model is loaded, for pairs that do not fit
            together; its hidden states wait in `output_dir`. The rows are the same.
    """

    base_model: str = field(default="pocket", metadata={"help": "The model before RL."})
    rl_model: str = field(default="outputs/pocket/model", metadata={"help": "The model after RL."})
    dataset_split: str | None = field(default=None, metadata={"help": "Split; by default one not trained on."})
    temperature: float = field(
        default=1.0, metadata={"help": "Temperature of sampling, and of the compared distributions."}
    )
    top_p: float = field(default=0.7, metadata={"help": "Nucleus of sampling, and of the truncated JS."})
    batch_tokens: int = field(default=8192, metadata={"help": "Tokens scored at once by each process."})
    one_model_at_a_time: bool = field(
        default=False, metadata={"help": "Score by the base, free it, then by the other model: memory of one."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tokens < 1:
            raise ValueError(f"batch_tokens={self.batch_tokens} must be at least 1.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        reasons = super().without_effect(values) | verification_without_effect([self.reward_func])
        reasons |= plan_without_effect(self)
        return reasons | map_without_effect(self.device_map) | engine_without_effect(self.engine)


@dataclass
class MeasuredShiftArguments(ShiftArguments):
    """
    The measure of the shift, and the speed that a plan assumes.

    Parameters:
        measure (`str`):
            The JS that counts: `js_top_p`, between distributions truncated to top-p as published, or `js`, between
            whole ones. Tables of tokens have both, so that a finished run can be looked at by either.
        plan_tflops (`float`, *optional*), plan_utilization (`float`):
            Floating-point operations of a planned GPU (1e12 per second; 989, an H100's in bfloat16, when not given),
            and the share of them that scoring makes. On CPU no time is told unless they are given.
    """

    measure: str = field(
        default=DEFAULT_MEASURE, metadata={"help": "js_top_p, truncated as published, or js, of whole distributions."}
    )

    plan_tflops: float | None = field(
        default=None, metadata={"help": "1e12 operations per second of a planned GPU (989 if not given) or process."}
    )
    plan_utilization: float = field(default=0.4, metadata={"help": "Share of these operations that are made."})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_measure(self.measure)
        if self.plan_tflops is not None and not 0 < self.plan_tflops < math.inf:
            raise ValueError(f"plan_tflops={self.plan_tflops} must be positive.")
        if not 0 < self.plan_utilization <= 1:
            raise ValueError(f"plan_utilization={self.plan_utilization} must lie in (0, 1].")


@dataclass
class ShiftJob(FolderOwner):
    """An analysis ready to begin: models found but not loaded, problems loaded.

    Attributes:
        args: the recipe's arguments.
        base, rl: the models.
        data: the rows of the problems; row i is problem i.
        prompts: the problems as the models read them.
        judge: says which responses are correct.
        folder: where results go.
        given: trajectories that were read from a file, and the text of each problem's prompt.
    """

    args: Any
    base: ModelSource
    rl: ModelSource
    data: Dataset
    prompts: list[Prompt]
    judge: Judge
    folder: RunFolder
    given: tuple[list[Trajectory], dict[int, str]] | None = None

    @property
    def most_tokens(self) -> int:
        """The tokens of both models' responses, or of those that are given, at most."""
        if self.given is not None:
            return sum(len(trajectory.completion_ids) for trajectory in self.given[0])
        return 2 * len(self.prompts) * self.args.samples * (self.args.max_new_tokens or 0)

    def generator(self, source: ModelSource, sampling: Sampling | None = None) -> Callable[[], Generator]:
        """A function that loads a model and returns a generator of its responses."""
        return generator_maker(source, self.args, sampling, self.longest)

    def writer(self, kind: str) -> Callable[[], Generator]:
        """A function that makes the policy of a kind of trajectory, `rl` or `base`, ready to write responses.

        In vLLM the other model reads along, and what the table needs of each token is kept; not where the two models
        end their responses by other tokens, which an engine of both does not tell apart.
        """
        source = self.rl if kind == "rl" else self.base
        if not self.scores_while_sampling:
            return self.generator(source)

        def ready() -> Generator:
            from tokenshift.analysis.token_table.sampled_table import ScoredSampling, ScoringSampler

            settings = ScoredSampling(kind, self.args.sampling, self.args.top_p, self.vocabulary)
            sampler = ScoringSampler(self.pair_engine(), settings, self.base.tokenizer)
            return KeepingGenerator(sampler, self.folder.units(KEPT), kind)

        return ready

    @property
    def scores_while_sampling(self) -> bool:
        """Whether responses are scored while they are sampled."""
        return self.args.engine == VLLM and self.given is None and model_ends(self.base) == model_ends(self.rl)

    def pair_engine(self) -> "Callable[[], VLLMEngine]":
        """A function that starts a vLLM engine with both models."""
        return engine_starter(self.args, self.args.dtype, self.rl, self.base, self.longest)

    @property
    def vocabulary(self) -> int:
        """The number of tokens that both LM heads have."""
        return min(source.config.get_text_config().vocab_size for source in (self.base, self.rl))

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and its response."""
        return max((len(prompt.ids) for prompt in self.prompts), default=0) + (self.args.max_new_tokens or 0)

    def states_bytes(self, tokens: int) -> int:
        """Bytes that the base's states of so many tokens take on the disk, about; 0 where both models are loaded."""
        return self.states_size.bytes_of(tokens) if self.args.one_model_at_a_time else 0

    @property
    def most_states_bytes(self) -> int:
        """Bytes that the base's states take at most: of all tokens, and of the responses that the page shows again."""
        shown = getattr(self.args, "report_responses", 0)
        longest = self.most_tokens if self.given is not None else int(self.args.max_new_tokens or 0)
        return self.states_bytes(self.most_tokens + min(self.most_tokens, shown * longest))

    @property
    def states_size(self) -> StatesSize:
        """The size of the base's hidden states."""
        return StatesSize.of(self.base.config, weights_dtype((self.base,), self.args.dtype))

    def scorer(
        self, rl: ModelSource | None = None, *, waiting: RunFolder | None = None, **settings: Any
    ) -> Callable[[], Scorer] | OneAtATime:
        """A function that loads both models and returns their scorer, or loads one after the other.

        Args:
            rl: the model that is compared with the base; the job's RL model when None.
            waiting: in whose units the base's states wait for the other model; the job's folder when None.
            settings: a temperature or top-p other than the arguments'.
        """
        settings = {"temperature": self.args.temperature, "top_p": self.args.top_p} | settings
        source = rl or self.rl
        if self.args.engine == VLLM:
            return self._engine_scorer(source, settings)
        if self.args.one_model_at_a_time:
            return OneAtATime(
                SpilledStates((waiting or self.folder).units(STATES)),
                lambda: self.load(self.base),
                lambda: self.load(source),
                self.base.tokenizer,
                self.states_size,
                where=f"output_dir={self.args.output_dir!r}",
                **settings,
            )

        def ready() -> PairScorer:
            pair = PairScorer(self.load(self.base), self.load(source), self.base.tokenizer, **settings)
            if pair.note and PartialState().is_main_process:
                print(pair.note)
            return pair

        return ready

    def _engine_scorer(self, rl: ModelSource, settings: dict[str, float]) -> Callable[[], Scorer]:
        """A function that makes the scorer in vLLM ready, whose engine starts with the first trajectory."""
        given = self.given[0] if self.given is not None else []
        lengths = [len(trajectory.prompt_ids) + len(trajectory.completion_ids) for trajectory in given]
        longest = max(self.longest, *lengths) if lengths else self.longest
        start = engine_starter(self.args, self.args.dtype, rl, self.base, longest, scores=True)
        vocabulary = min(source.config.get_text_config().vocab_size for source in (self.base, rl))

        def ready() -> Scorer:
            from tokenshift.analysis.token_table.engine_scoring import EngineScorer

            return EngineScorer(start, self.base.tokenizer, vocabulary, **settings)

        return ready

    def load(self, source: ModelSource) -> Any:
        """Load a model onto this process's device."""
        return ready_model(source, self.args)

    def metadata(self, **more: Any) -> dict[str, Any]:
        """Metadata of a table: the models, problems and sampling that its rows come from."""
        if self.given is None:
            sampled = {"dataset": self.args.dataset_name, "samples": self.args.samples, **asdict(self.args.sampling)}
        else:  # how the file's responses were sampled is not known
            sampled = {"temperature": self.args.temperature, "top_p": self.args.top_p}
        if self.given is None or any(trajectory.reward is not None for trajectory in self.given[0]):
            sampled |= {"reward": self.args.reward_func, "correct_threshold": self.args.correct_threshold}
        return {
            "base_model": self.base.name,
            "base_revision": self.base.revision or getattr(self.base.config, "_commit_hash", None),
            "rl_model": self.rl.name,
            "rl_revision": self.rl.revision or getattr(self.rl.config, "_commit_hash", None),
            **sampled,
            "dtype": weights_dtype((self.base, self.rl), self.args.dtype),
            **({"measure": self.args.measure} if isinstance(self.args, MeasuredShiftArguments) else {}),
            "prompts": {prompt.problem_id: prompt.text for prompt in self.prompts},
            **engine_facts(self.args),
            **more,
        }


def prepare_shift(args: ShiftArguments, *, problems: bool = True, setting: str = "rl_model") -> ShiftJob:
    """Check what can be checked without loading a model.

    Args:
        args: the recipe's arguments.
        problems: whether problems are needed; responses from a file bring their own.
        setting: the option that names the model after training, for messages.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    state = check_machine(args)
    load_reward(args.reward_func)  # an unknown one is named before all else
    trust = args.trust_remote_code
    base = find_model("base_model", args.base_model, trust_remote_code=trust)
    rl = find_model(setting, args.rl_model, trust_remote_code=trust)
    require_shared_vocabulary(base, rl)
    check_device_map(args, (base, rl))
    if not problems:
        return ShiftJob(args, base, rl, Dataset.from_dict({}), [], no_judge, RunFolder(Path(args.output_dir)))
    with state.main_process_first():
        data = args.problem_set(args.dataset_split, args.size)
    refuse_without_effect((args,), template_without_effect([data]))
    prompts = encoded_prompts(data, base, args.template_kwargs)
    room = response_room(prompts, base, args.max_new_tokens)
    args.max_new_tokens = args.max_new_tokens or (LONGEST_RESPONSE if room is None else min(LONGEST_RESPONSE, room))
    lengths = [len(prompt.ids) for prompt in prompts]
    check_context(
        rl.config, lengths, args.max_new_tokens, model=f"{setting}={args.rl_model!r}", setting="max_new_tokens"
    )
    longest = max(lengths, default=0) + args.max_new_tokens
    check_engine(args, args.dtype, (base, rl), longest, pair=True)
    judge = judge_of(data, args.reward_func, args.correct_threshold)
    if judge is no_judge:
        reason = "the data has no gold answers, so nothing is judged; name their column by --solution_column."
        refuse_without_effect((args,), {"correct_threshold": reason})
    return ShiftJob(args, base, rl, data, prompts, judge, RunFolder(Path(args.output_dir)))


def row_settings(job: ShiftJob, *unrecorded: str) -> dict[str, Any]:
    """The arguments that rows depend on, and hashes of what the names among them stand for.

    Args:
        job: the analysis.
        unrecorded: further arguments of the recipe on which no row depends.
    """
    left_out = (*UNRECORDED_ARGUMENTS, "measure", *unrecorded)
    settings = {name: value for name, value in asdict(job.args).items() if name not in left_out}
    if job.args.chat_template_kwargs is None:
        del settings["chat_template_kwargs"]  # as in folders that were made before it could be given
    if job.args.correct_threshold == CORRECT:
        del settings["correct_threshold"]  # as in folders that were made before it could be chosen
    if job.args.engine == TRANSFORMERS:
        del settings["engine"]  # likewise
    return settings | {
        "base_model_content": model_content(job.base),
        "rl_model_content": model_content(job.rl),
        "dataset_content": data_content(job.data),
    }
