"""Arguments of the shift analysis, and all of it that can be looked at before a model is loaded."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from datasets import Dataset
from filelock import FileLock, Timeout

from tokenshift.analysis.generation import Generator, Sampling, TransformersGenerator, VLLMGenerator, encode_prompt
from tokenshift.analysis.scoring import PairScorer
from tokenshift.analysis.shift_run import Judge, Prompt, RunFolder
from tokenshift.analysis.tokenizers import shared_vocabulary
from tokenshift.analysis.trajectories import Trajectory
from tokenshift.analysis.whole_file import write_whole
from tokenshift.recipes.data import load_problem_set
from tokenshift.recipes.models import ModelSource, find_model
from tokenshift.recipes.preparation import delete_products
from tokenshift.rewards import configure_verification, load_reward
from tokenshift.trainer.launch import check_launch

SETTINGS_FILE = "settings.json"
LOCK_FILE = ".lock"
WEIGHTS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "tokenizer.json")
SAMPLE = 2**16
"""Bytes of a file that are looked at in one place."""

LONGEST = 1024
"""Tokens of a response where neither the user nor the model sets a limit."""

PRODUCTS = (
    "trajectories",
    "table",
    "units",
    "explorer.npz",
    "summary.json",
    "figures",
    "report.html",
    "models",
    "cells",
    "evolution.json",
    "robustness.json",
    "robustness.md",
    "thresholds.json",
    "cross.json",
    "cross.md",
    SETTINGS_FILE,
)


@dataclass
class ShiftArguments:
    """
    Arguments of the recipes that compare a base with the model after RL.

    Parameters:
        base_model, rl_model (`str`):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters.
        dataset_name, dataset_config, dataset_split, size:
            Problems, and how many of them.
        prompt_column, solution_column, system_prompt, prompt_template:
            As in training.
        reward_func (`str`):
            Judges responses; correct is a reward of 1.
        samples (`int`), temperature, top_p, max_new_tokens, seed:
            Responses a problem, and how they are sampled; top_p also truncates the distributions of `js_top_p`.
        batch_size, batch_tokens (`int`):
            Responses sampled at once, and tokens scored at once.
        dtype, attn_implementation, use_vllm:
            How models are loaded and responses sampled.
        output_dir (`str`), overwrite (`bool`):
            Where results go; an earlier analysis there is gone on with if its settings are the same.
    """

    base_model: str = field(default="pocket", metadata={"help": "The model before RL."})
    rl_model: str = field(default="outputs/pocket/model", metadata={"help": "The model after RL."})
    dataset_name: str = field(
        default="pocket", metadata={"help": "pocket, sums, a .json/.jsonl/.parquet/.csv file, a folder or a hub name."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of hub data."})
    dataset_split: str | None = field(default=None, metadata={"help": "Split; by default one not trained on."})
    size: int | None = field(default=None, metadata={"help": "Problems; all, or 256 of made ones, when not given."})
    prompt_column: str = field(default="prompt", metadata={"help": "Column with the prompts."})
    solution_column: str | None = field(default="solution", metadata={"help": "Column with the gold answers."})
    system_prompt: str | None = field(default=None, metadata={"help": "Put before each prompt as a system turn."})
    prompt_template: str | None = field(default=None, metadata={"help": "Text around each prompt, with {prompt}."})
    reward_func: str = field(default="accuracy_reward", metadata={"help": "Judge: its name or a dotted path."})
    samples: int = field(default=1, metadata={"help": "Responses a problem."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampling, and of the compared distributions."})
    top_p: float = field(default=0.7, metadata={"help": "Of sampling, and of the truncated JS."})
    max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Longest response, in tokens; at most 1024, and what the model reads, if not given."},
    )
    seed: int = field(default=0, metadata={"help": "Of the sampled responses."})
    batch_size: int = field(default=32, metadata={"help": "Responses sampled at once by each process."})
    batch_tokens: int = field(default=8192, metadata={"help": "Tokens scored at once by each process."})
    dtype: str = field(default="auto", metadata={"help": "auto, float32, bfloat16 or float16."})
    attn_implementation: str | None = field(default=None, metadata={"help": "As in transformers."})
    use_vllm: bool = field(default=False, metadata={"help": "Sample by vLLM."})
    verify_workers: int = field(default=2, metadata={"help": "Verification processes of each process."})
    verify_timeout: float = field(default=10.0, metadata={"help": "Seconds a verification may take."})
    output_dir: str = field(default="outputs/pocket/analysis", metadata={"help": "Where results go."})
    overwrite: bool = field(default=False, metadata={"help": "Delete what an earlier analysis left in output_dir."})

    def __post_init__(self) -> None:
        for name in ("size", "samples", "batch_size", "batch_tokens", "verify_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype={self.dtype!r} is not known; choose auto, float32, bfloat16 or float16.")
        if self.solution_column is not None and self.solution_column.lower() in ("none", "null", ""):
            self.solution_column = None
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be at least 1.")
        _ = self.sampling  # the other numbers are checked there
        self.output_dir = str(Path(self.output_dir).expanduser())

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_new_tokens or LONGEST, self.seed)


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
        sampling = sampling or self.args.sampling
        if self.args.use_vllm:
            return lambda: VLLMGenerator(source.path, source.revision, source.tokenizer, sampling)
        return lambda: TransformersGenerator(self.load(source), source.tokenizer, sampling)

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
        options = {"attn_implementation": self.args.attn_implementation} if self.args.attn_implementation else {}
        return source.load(self.args.dtype, PartialState().device, **options)

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
    state = PartialState(cpu=not torch.accelerator.is_available())
    check_launch(state)
    if args.use_vllm and find_spec("vllm") is None:
        raise ValueError("use_vllm=True needs vLLM: pip install 'tokenshift[vllm]'.")
    configure_verification(args.verify_workers, args.verify_timeout)
    reward = load_reward(args.reward_func)
    base, rl = find_model("base_model", args.base_model), find_model("rl_model", args.rl_model)
    sizes = [source.config.get_text_config().vocab_size for source in (base, rl)]
    try:
        shared_vocabulary(base.tokenizer, rl.tokenizer, *sizes)
    except ValueError as error:
        raise ValueError(f"base_model={args.base_model!r} and rl_model={args.rl_model!r}: {error}") from error
    if not problems:
        return ShiftJob(args, base, rl, Dataset.from_dict({}), [], _no_judge, RunFolder(Path(args.output_dir)))
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
    prompts = _prompts(data, base, args)
    unjudged = args.reward_func == "accuracy_reward" and "solution" not in data.column_names
    judge = _no_judge if unjudged else _judge(data, reward)
    return ShiftJob(args, base, rl, data, prompts, judge, RunFolder(Path(args.output_dir)))


def _prompts(data: Dataset, base: ModelSource, args: ShiftArguments) -> list[Prompt]:
    tokenizer = base.tokenizer
    if not isinstance(data[0]["prompt"], str) and tokenizer.chat_template is None:
        raise ValueError("The prompts are conversations, but the base model's tokenizer has no chat template.")
    found = []
    context = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    for row, prompt in enumerate(data["prompt"]):
        text = prompt if isinstance(prompt, str) else tokenizer.apply_chat_template(prompt, tokenize=False)
        ids = encode_prompt(tokenizer, prompt)
        if not ids:
            raise ValueError(f"The prompt of row {row} is empty; give it a text.")
        found.append(Prompt(row, str(text), ids))
    longest = max(found, key=lambda each: len(each.ids))
    if context is None:
        args.max_new_tokens = args.max_new_tokens or LONGEST
        return found
    left = context - len(longest.ids)
    if left < (args.max_new_tokens or 1):
        raise ValueError(
            f"The prompt of row {longest.problem_id} has {len(longest.ids)} tokens, which leaves {left} of the "
            f"{context} that the model reads; " + ("leave it out." if left < 1 else "lower max_new_tokens.")
        )
    args.max_new_tokens = args.max_new_tokens or min(LONGEST, left)
    return found


def _no_judge(rows: list[int], texts: list[str]) -> list[bool | None]:
    return [None] * len(rows)


def _judge(data: Dataset, reward: Any) -> Judge:
    columns = [name for name in data.column_names if name not in ("prompt", "completion")]
    conversational = not isinstance(data[0]["prompt"], str)

    def judge(rows: list[int], texts: list[str]) -> list[bool | None]:
        part = data.select(rows)
        completions: Any = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
        values = reward(
            prompts=part["prompt"], completions=completions, **{name: list(part[name]) for name in columns}
        )
        return [None if value is None else value == 1 for value in values]

    return judge


def open_folder(job: ShiftJob, settings: dict[str, Any]) -> None:
    """Make the output folder ready: go on with an earlier analysis of the same settings, refuse one of others.

    Args:
        job: the analysis; it holds the folder's lock from now on.
        settings: whatever its rows depend on.

    Raises:
        ValueError: if the folder holds another analysis, somebody else's files, damaged files, or is in use.
    """
    folder, file = job.folder.path, job.folder.path / SETTINGS_FILE
    state = PartialState()
    text = json.dumps(settings, indent=1, sort_keys=True, default=str) + "\n"
    overwrite = job.args.overwrite
    wrong = _wrong_with(folder, None if overwrite else json.loads(text))
    state.wait_for_everyone()  # all have looked before anything is written
    if wrong:
        raise ValueError(f"output_dir={job.args.output_dir!r} {wrong}")
    if state.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            job.lock = FileLock(folder / LOCK_FILE)
            job.lock.acquire(blocking=False)
        except Timeout as error:
            raise ValueError(f"output_dir={job.args.output_dir!r} is in use by another analysis.") from error
        except OSError as error:
            raise ValueError(f"output_dir={job.args.output_dir!r} cannot be written: {error.strerror}.") from error
        if overwrite and file.exists():
            delete_products(folder, PRODUCTS)
        write_whole(file, text)
    state.wait_for_everyone()


def _wrong_with(folder: Path, settings: dict[str, Any] | None) -> str | None:
    """What keeps an analysis of these settings from the folder; `settings` None where it is to be overwritten."""
    if folder.exists() and not folder.is_dir():
        return "is a file."
    file = folder / SETTINGS_FILE
    if not file.exists():
        foreign = next((path for pattern in PRODUCTS for path in folder.glob(pattern)), None)
        return f"has a {foreign.name} that no analysis made; choose another --output_dir." if foreign else None
    if settings is None:
        return None
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return f"has a damaged {SETTINGS_FILE}; delete the analysis by --overwrite true."
    for name in sorted(before.keys() | settings.keys()):
        old, new = before.get(name), settings.get(name)
        if old != new:
            what = "other contents" if name.endswith("_content") else f"{name}={old!r}, not {new!r}"
            of = f" of {name.removesuffix('_content')}" if name.endswith("_content") else ""
            return f"holds an analysis with {what}{of}; choose another --output_dir, or --overwrite true."
    for path in [*folder.rglob("*.parquet"), *folder.rglob("*.npz")]:
        if not (zipfile.is_zipfile(path) if path.suffix == ".npz" else _is_parquet(path)):
            return f"has a damaged file, {path.relative_to(folder)}; delete it, and start again."
    return None


def _is_parquet(path: Path) -> bool:
    try:
        pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


def content_hash(paths: Iterable[Path]) -> str:
    """Of files' names, sizes, and what stands at their begin, middle and end: another model shows in any of it."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for place in (0, size // 2, max(0, size - SAMPLE)):
                file.seek(place)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]


def model_content(source: ModelSource) -> str | None:
    """What a model's name stood for: a hash of a folder's weights and tokenizer, or the hub's commit."""
    folder = Path(source.path)
    if not folder.is_dir():
        return getattr(source.config, "_commit_hash", None)
    return content_hash(path for pattern in WEIGHTS for path in folder.glob(pattern))


def row_settings(job: ShiftJob, *loose: str) -> dict[str, Any]:
    """The arguments that rows depend on, and hashes of what the names among them stand for.

    Args:
        job: the analysis.
        loose: arguments of the recipe's own on which no row depends.
    """
    loose = ("output_dir", "overwrite", "verify_workers", "verify_timeout", *loose)
    found = {name: value for name, value in asdict(job.args).items() if name not in loose}
    rows = json.dumps(job.data.to_list(), sort_keys=True, default=str)
    return found | {
        "base_model_content": model_content(job.base),
        "rl_model_content": model_content(job.rl),
        "dataset_content": hashlib.sha256(rows.encode()).hexdigest()[:16],
    }
