"""The parts of an analysis' plan: the machine, models by their configs, and texts; and the printing of the plan."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import compute_module_sizes
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tokenshift.analysis.plan.analysis_memory import FIRST_USE, ReadModel, Texts
from tokenshift.analysis.plan.forward_pass import ForwardPass
from tokenshift.analysis.plan.parts import CUDA_CONTEXT, MemoryPlan, Part
from tokenshift.analysis.sampling.prompts import encode_problems
from tokenshift.analysis.sampling.token_ids import check_context, context_length
from tokenshift.analysis.storage.disk import as_bytes, free_bytes
from tokenshift.recipes.command_line.plan_view import peak_lines, show_memory, verdict_lines
from tokenshift.recipes.command_line.planned_launch import planned_launch
from tokenshift.recipes.command_line.start import is_main_process
from tokenshift.recipes.inputs.device_maps import DISK, DeviceMap, fitted_map
from tokenshift.recipes.inputs.engines import VLLM
from tokenshift.recipes.inputs.models import FoundConfig, find_config, find_tokenizer
from tokenshift.recipes.inputs.sampling import LONGEST_RESPONSE, check_spread
from tokenshift.trainer.plan.launch import Launch
from tokenshift.trainer.reference_cache import GIB

VLLM_SHARE = 0.9
"""Share of a GPU's memory that vLLM takes where no other is given."""

SMALL_SHARE = 0.05
"""Share of a phase's memory below which nothing is said of a part."""

FOLLOWED_ATTENTION = ("eager", "sdpa")
"""Attention that runs without its numbers; with others a forward pass is planned as by the model's own."""


@dataclass(frozen=True)
class Machine:
    """The machine that an analysis is planned for.

    Attributes:
        launch: its processes.
        capacity: bytes of a process's device.
        gpus: devices that a process may spread a model over; none on CPU.
        words: what has the capacity, for the verdict.
    """

    launch: Launch
    capacity: int
    gpus: int
    words: str

    @property
    def device(self) -> torch.device:
        """The kind of device that a process computes on."""
        return torch.device("cpu" if self.launch.on_cpu else "cuda")

    @property
    def own_parts(self) -> list[Part]:
        """The parts that are on the device in any case."""
        if self.launch.on_cpu:
            return [Part("libraries", FIRST_USE, note="when first used, about")]
        return [Part("CUDA and its allocator", CUDA_CONTEXT, note="about")]


def planned_machine(args: Any) -> Machine:
    """The machine of a plan: this one, or that of `--plan_gpu_gib` and `--plan_launch`.

    Raises:
        ValueError: for options that do not fit one another.
    """
    given = planned_launch(args.plan_launch, args.plan_processes, args.plan_machines)
    if given is not None and given.on_cpu and args.plan_gpu_gib is not None:
        raise ValueError(
            f"plan_gpu_gib={args.plan_gpu_gib:g} has no effect: plan_launch={args.plan_launch!r} computes on CPU; "
            "leave one of them out."
        )
    here = int(os.environ.get("WORLD_SIZE", "1"))
    launch = given or Launch(here, max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", here))))
    on_gpu = args.plan_gpu_gib is not None or (torch.cuda.is_available() and not launch.on_cpu)
    engine = "" if launch.processes == 1 else "which share the work"
    launch = Launch(launch.processes, launch.machines, engine, on_cpu=not on_gpu)
    check_spread(args.device_map, launch.processes)
    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory if args.plan_gpu_gib is None else 0
        capacity = total or int(args.plan_gpu_gib * GIB)
        gpus = args.plan_gpus or (1 if args.plan_gpu_gib is not None else torch.cuda.device_count())
        return Machine(launch, capacity, gpus, f"a GPU of {capacity / GIB:.3g} GiB")
    local = launch.processes // launch.machines
    free = psutil.virtual_memory().available
    share = f", for each of {local} processes," if local > 1 else ""
    return Machine(launch, free // local, 0, f"{free // local / GIB:.3g} GiB{share} of this machine's free memory")


class PlannedModels:
    """The models of a plan, each read from its config once.

    Args:
        args: the recipe's arguments.
        machine: what they are planned for.
    """

    def __init__(self, args: Any, machine: Machine) -> None:
        self._args, self._machine = args, machine
        self._known: dict[str, ForwardPass] = {}
        self.found: dict[str, tuple[str, FoundConfig]] = {}  # name -> the setting that names it, and its config

    def find(self, setting: str, name: str) -> FoundConfig:
        """The config of a model.

        Raises:
            ValueError: as `find_config` does, and for quantized weights.
        """
        found = find_config(setting, name, trust_remote_code=self._args.trust_remote_code)
        if getattr(found.config, "quantization_config", None) is not None:
            raise ValueError(
                f"{setting}={name!r} has quantized weights, which cannot be planned: their size is their library's "
                "to choose."
            )
        self.found.setdefault(name, (setting, found))
        return found

    def dtype(self, found: FoundConfig) -> torch.dtype:
        """The dtype that a model is loaded in: its files' where `auto` asks for it, float32 where they say none."""
        name = self._args.dtype if self._args.dtype != "auto" else getattr(found.config, "dtype", None) or "float32"
        return name if isinstance(name, torch.dtype) else getattr(torch, str(name).removeprefix("torch."))

    def read(self, setting: str, name: str, title: str, beside: int = 0) -> ReadModel:
        """A model as it is planned.

        Args:
            setting: the option that names it.
            name: its name.
            title: what the plan calls it.
            beside: bytes that are on each device before it is loaded.

        Raises:
            ValueError: as `find` does, and for a model that cannot be followed without weights.
        """
        found, args = self.find(setting, name), self._args
        dtype = self.dtype(found)
        described = json.loads(found.config.to_json_string(use_diff=False))
        for key in ("_name_or_path", "dtype", "transformers_version"):
            described.pop(key, None)
        key = json.dumps([described, str(dtype)], sort_keys=True)
        if key not in self._known:
            options = {"attn_implementation": args.attn_implementation, "trust_remote_code": args.trust_remote_code}
            if args.attn_implementation not in FOLLOWED_ATTENTION:
                del options["attn_implementation"]
            self._known[key] = ForwardPass(found.config, dtype, **options)
        forward = self._known[key]
        return self._placed(ReadModel(title, forward.sizes, forward), name, found, dtype, beside)

    def _placed(self, model: ReadModel, name: str, found: FoundConfig, dtype: torch.dtype, beside: int) -> ReadModel:
        """A model with its weights where `device_map` puts them."""
        given, machine = self._args.device_map, self._machine
        if given is None:
            return model
        weights = model.sizes.weights
        if isinstance(given, str):  # as even as accelerate makes it, or one device after the other; then host memory
            if not machine.gpus:
                return model
            left = max(0, machine.capacity - CUDA_CONTEXT - beside)
            fullest = min(weights if given == "sequential" else -(-weights // machine.gpus), left)
            waiting = max(0, weights - machine.gpus * fullest)
            words = f"over {machine.gpus} GPUs" if machine.gpus > 1 else ""
            return replace(model, on_device=fullest, waiting=waiting, devices=machine.gpus, spread=words)
        trust, adapter = self._args.trust_remote_code, found.base is not None
        fitted = fitted_map(name, found.config, given, adapter=adapter, trust_remote_code=trust)
        places = _places(found, fitted, dtype, trust)
        on_cpu, on_disk = places.pop("cpu", 0), places.pop(DISK, 0)
        words = f"{as_bytes(on_disk)} on the disk" if on_disk else "by device_map"
        if not places:
            return replace(model, on_device=on_cpu, spread=words)
        return replace(model, on_device=max(places.values()), waiting=on_cpu, devices=len(places), spread=words)


def _places(found: FoundConfig, device_map: DeviceMap, dtype: torch.dtype, trust_remote_code: bool) -> dict[str, int]:
    """Bytes of a model's weights on each device of a mapping."""
    assert isinstance(device_map, Mapping)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(found.config, dtype=dtype, trust_remote_code=trust_remote_code)
    sizes = compute_module_sizes(model)
    places: dict[str, int] = {}
    for part, device in device_map.items():
        places[str(device)] = places.get(str(device), 0) + sizes.get(part, 0)
    return places


@dataclass(frozen=True)
class PlannedTexts:
    """The texts of a plan.

    Attributes:
        texts: their lengths.
        problems: how many problems there are.
        words: where the lengths come from.
        were_read: whether the problems were loaded; else `problems` is what was asked for of each set.
    """

    texts: Texts
    problems: int
    words: str
    were_read: bool = True


def planned_texts(
    args: Any, models: PlannedModels, readers: Sequence[str], sets: Callable[[], Sequence[Dataset]]
) -> PlannedTexts:
    """Problems and lengths: as they are given, else the data's, read by the tokenizers of the models that answer.

    Args:
        args: the recipe's arguments.
        models: all models of the plan, found.
        readers: names of those whose tokenizers read the prompts.
        sets: loads the problems; called only where their number or their lengths are not given.

    Raises:
        ValueError: for data or a tokenizer that is not there, or a response that a model has no positions for.
    """
    given = args.plan_prompt_tokens
    loaded = sets() if given is None or args.size is None else []
    problems = sum(map(len, loaded)) if loaded else args.size
    prompt = given or max(
        len(ids) for name in readers for rows in loaded for ids in _encoded(args, models, name, rows)
    )
    contexts = [length for _, found in models.found.values() if (length := context_length(found.config)) is not None]
    response = args.max_new_tokens or min([LONGEST_RESPONSE, *(max(1, context - prompt) for context in contexts)])
    for name, (setting, found) in models.found.items():
        check_context(found.config, [prompt], response, model=f"{setting}={name!r}", setting="max_new_tokens")
    mean = min(args.plan_completion_tokens or response, response)
    words = "plan_prompt_tokens" if given else "the data's"
    return PlannedTexts(Texts(prompt, response, mean), problems, words, bool(loaded))


def _encoded(args: Any, models: PlannedModels, name: str, rows: Dataset) -> list[list[int]]:
    """The prompts as a model's tokenizer reads them.

    Raises:
        ValueError: if there is no tokenizer, or for prompts that it cannot read.
    """
    setting, found = models.found[name]
    without = "give the length of the longest prompt by --plan_prompt_tokens to plan without it."
    try:
        tokenizer = find_tokenizer(setting, name, found, trust_remote_code=args.trust_remote_code)
    except ValueError as error:
        raise ValueError(f"The tokenizer of {error} Or {without}") from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # made of nothing where there is no file of it
        raise ValueError(f"{setting}={name!r} has no tokenizer, which would read the prompts; {without}")
    prompts = encode_problems(rows, tokenizer, name=name, chat_template_kwargs=args.template_kwargs)
    return [prompt.ids for prompt in prompts]


@dataclass(frozen=True)
class PlannedAnalysis:
    """A plan, and what is said of it.

    Attributes:
        plan: the memory.
        launch: the processes.
        device: what has the plan's capacity.
        facts: lines about models, lengths, tokens and time.
        changes: what to change so that the tightest phase takes less.
        output_dir: where files would go.
        files: what would be written there at most: name -> bytes.
    """

    plan: MemoryPlan
    launch: Launch
    device: str
    facts: list[str]
    changes: list[str]
    output_dir: str
    files: dict[str, int]


def show_plan(job: PlannedAnalysis) -> None:
    """Print the plan, on the first process: memory, tokens, files, what runs out first and what to change."""
    if not is_main_process():
        return
    show_memory(job.plan, "process" if job.launch.on_cpu else "GPU")
    free, needed = free_bytes(Path(job.output_dir)), sum(job.files.values())
    listed = ", ".join(f"{name} of at most {as_bytes(size)}" for name, size in job.files.items() if size)
    room = "" if needed <= free else ": too little"
    changes = list(job.changes)
    if room:
        changes.insert(0, "fewer or shorter responses (size, samples, max_new_tokens), or an output_dir elsewhere")
    for row in (
        *job.facts,
        *peak_lines(job.plan, job.launch),
        f"files: {listed}; output_dir={job.output_dir!r} has {as_bytes(free)} free{room}",
        *verdict_lines(job.plan, job.device, changes, fits=not room),
    ):
        print(row)  # lines to copy


@dataclass(frozen=True)
class Tightest:
    """The tightest phase of a plan.

    Attributes:
        rows: texts of its batch.
        on_cpu: whether the device is a CPU.
        float32: whether weights are float32.
        pair: whether both models are loaded.
        scores: whether responses are read, by `batch_tokens`.
        vllm: whether vLLM has the memory.
    """

    rows: int
    on_cpu: bool
    float32: bool
    pair: bool = False
    scores: bool = False
    vllm: bool = False


def changes_of(plan: MemoryPlan, args: Any, tightest: Tightest) -> list[str]:
    """What to change so that the tightest phase takes less, the largest part of it first; one line each."""
    sizes: dict[str, int] = {}
    for name, size in plan.largest_parts().items():
        kind = "weights" if name.startswith("weights of") else name
        sizes[kind] = sizes.get(kind, 0) + size
    ways = {name: _way_out(name, args, tightest) for name in sizes}
    least = SMALL_SHARE * sum(sizes.values())
    ordered = sorted((name for name in sizes if sizes[name] >= least), key=lambda name: -sizes[name])
    return [f"{name}, {sizes[name] / GIB:.3g} GiB: {ways[name]}" for name in ordered if ways[name]]


def _way_out(name: str, args: Any, tightest: Tightest) -> str | None:
    """How one part gets smaller; None where nothing is known."""
    if name == "weights":
        return _lighter(args, tightest)
    if name == "responses":
        return "fewer problems or samples"
    shorter = "a smaller max_new_tokens"
    if tightest.vllm:
        return shorter if name == "KV cache" else None
    half = f"batch_size {args.batch_size // 2 or 1}"
    if name in ("KV cache", "KV caches", "copied caches", "kept of the KV cache", "logits of a step"):
        return shorter if tightest.rows == 1 else half
    if name in ("activations", "states of base", "states of RL"):
        if tightest.rows == 1:
            return shorter
        return f"batch_tokens {args.batch_tokens // 2}" if tightest.scores else half
    return None


def _lighter(args: Any, tightest: Tightest) -> str | None:
    """How weights take less of a device; None where nothing is known."""
    ways = ["dtype bfloat16"] if tightest.float32 else []
    if tightest.vllm:
        devices = args.vllm_tensor_parallel_size
        ways.append(f"{'' if args.engine == VLLM else 'engine vllm with '}vllm_tensor_parallel_size {2 * devices}")
        return ", or ".join(ways)
    if tightest.pair and tightest.scores:
        ways.append("one_model_at_a_time true")
    if args.device_map is None and not tightest.on_cpu:
        ways.append("device_map auto over several GPUs")
    return ", or ".join(ways) or None
