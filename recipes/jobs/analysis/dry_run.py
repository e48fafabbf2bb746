"""`--dry_run` of the analyses: their plans, from arguments and the models' config.json; data is read for its lengths.

No model is loaded, nothing is written, and no output folder is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset

from tokenshift.analysis.cross_sampling.decoding import TREE
from tokenshift.analysis.cross_sampling.decoding_batch import SPARE
from tokenshift.analysis.cross_sampling.draft_and_verify import LONGEST_BLOCK
from tokenshift.analysis.plan.analysis_memory import (
    BASE_READING,
    CACHES,
    COMPARING,
    DECODING,
    READING,
    SAMPLING,
    ReadModel,
    Texts,
    decoding_parts,
    engine_parts,
    kept_parts,
    sampling_parts,
    scoring_parts,
)
from tokenshift.analysis.plan.parts import MemoryPlan, Part
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.shift_analysis import SAMPLED
from tokenshift.analysis.storage.disk import tables_bytes
from tokenshift.analysis.token_table.spilled_states import StatesSize
from tokenshift.analysis.vllm_engine.engine import SCORED_TOKENS
from tokenshift.recipes.command_line.plan_view import time_words
from tokenshift.recipes.inputs.engines import VLLM
from tokenshift.recipes.inputs.models import find_tokenizer
from tokenshift.recipes.inputs.trajectory_files import load_trajectories
from tokenshift.recipes.jobs.analysis.planned import (
    VLLM_SHARE,
    Machine,
    PlannedAnalysis,
    PlannedModels,
    PlannedTexts,
    Tightest,
    changes_of,
    planned_machine,
    planned_texts,
)
from tokenshift.trainer.reference_cache import GIB

ENGINE = "vLLM"
"""The one phase of an analysis in vLLM's engine, which samples and scores in the same memory."""

DRAFT, LOCKSTEP = "draft", "lockstep"
"""Engines of cross-sampling; the other one is `TREE`."""


def plan_shift(args: Any, models: Sequence[str], sft: Sequence[str] = ()) -> PlannedAnalysis:
    """The plan of `shift`: of one trained model, or of several that are analyzed one after the other.

    Args:
        args: its arguments.
        models: the models after RL.
        sft: the SFT controls.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    kinds = SAMPLED.get(args.trajectories, ())
    named = [("rl_model", name) for name in models] + [("sft_models", name) for name in sft]
    tables = max(1, len(kinds))
    return _scored(args, named, kinds, sampled=len(kinds), scored=tables, held=tables, of_each=True)


def plan_evolution(args: Any, checkpoints: Sequence[str]) -> PlannedAnalysis:
    """The plan of `evolution`: each checkpoint answers, and all are scored along the last one's responses.

    Args:
        args: its arguments.
        checkpoints: their names, the last one last.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    named = [("checkpoints", name) for name in reversed(checkpoints)]
    return _scored(args, named, ("rl",), sampled=1, scored=1, held=1, of_each=True)


def plan_robustness(args: Any) -> PlannedAnalysis:
    """The plan of `robustness`: every kind of response at every temperature, scored at every top-p.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    sampled = len(args.kinds) * len(args.temperatures)
    named = [("rl_model", args.rl_model)]
    scored = sampled * len(args.top_ps)
    return _scored(args, named, args.kinds, sampled=sampled, scored=scored, held=1, of_each=False)


def plan_cross(args: Any) -> PlannedAnalysis:
    """The plan of `cross`.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    machine = planned_machine(args)
    models = PlannedModels(args, machine)
    base = models.read("base_model", args.base_model, "base")
    rl = models.read("rl_model", args.rl_model, "RL", beside=base.on_device or 0)
    texts = planned_texts(args, models, [args.base_model], lambda: [args.problem_set(args.dataset_split, args.size)])
    responses = texts.problems * args.samples
    rows = min(args.batch_size, responses)
    engine_facts: list[str] = []
    if args.engine == VLLM:
        plan, device, engine_facts = _engine_plan(args, machine, (base, rl), texts.texts)
    else:
        parts = [
            *base.weights(),
            *rl.weights(),
            *decoding_parts(base, rl, rows, texts.texts, **_decoder(args.engine)),
            *machine.own_parts,
        ]
        plan, device = MemoryPlan(parts=parts, phases=(DECODING,), capacity=machine.capacity), machine.words
    policies, seeds = args.most_policies, len(dict.fromkeys(args.seeds))
    tokens = policies * responses * texts.texts.response
    pilot = min(args.pilot, texts.problems)
    facts = [
        _models_fact(args, models, [(args.base_model, base), (args.rl_model, rl)], machine),
        _lengths_fact(texts),
        f"policies: at most {policies} ({policies // seeds} for each of {seeds} seeds), each with {texts.problems} "
        f"problems x {args.samples} = {responses:,} responses: at most {tokens:,} tokens"
        + (", shared prefixes decoded once" if args.engine == TREE else ""),
    ]
    if args.wanted:
        facts.append(f"pilot: thresholds of {len(args.wanted)} budgets on {pilot} problems, whose tokens come on top")
    return PlannedAnalysis(
        plan,
        machine.launch,
        device,
        [*facts, *engine_facts],
        changes_of(plan, args, _tightest(plan, machine, (base, rl), rows, pair=True)),
        args.output_dir,
        {"tables": tables_bytes(tokens, 0)},
    )


def plan_evaluation(args: Any, load: Callable[[], Sequence[Dataset]]) -> PlannedAnalysis:
    """The plan of `evaluate`.

    Args:
        args: its arguments.
        load: loads the problem sets.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    machine = planned_machine(args)
    models = PlannedModels(args, machine)
    named = {"model": args.model} | ({} if args.against is None else {"against": args.against})
    read = {name: models.read(setting, name, "the model") for setting, name in named.items()}
    texts = planned_texts(args, models, list(read), load)
    problems = texts.problems * (1 if texts.were_read else len(args.datasets))
    responses = problems * args.samples
    rows = _rows(args, responses)
    engine_facts: list[str] = []
    largest = max(read.values(), key=lambda model: model.sizes.weights)
    if args.engine == VLLM or args.use_vllm:
        plan, device, engine_facts = _engine_plan(args, machine, (largest,), texts.texts)
    else:
        parts = [*largest.weights(), *sampling_parts(list(read.values()), rows, texts.texts), *machine.own_parts]
        plan, device = MemoryPlan(parts=parts, phases=(SAMPLING,), capacity=machine.capacity), machine.words
    tokens = len(read) * responses * texts.texts.response
    facts = [
        _models_fact(args, models, list(read.items()), machine),
        _lengths_fact(texts),
        f"to sample: {problems} problems x {args.samples} x {len(read)} model{'s'[: len(read) > 1]} = "
        f"{len(read) * responses:,} responses, at most {tokens:,} tokens",
    ]
    return PlannedAnalysis(
        plan,
        machine.launch,
        device,
        [*facts, *engine_facts],
        changes_of(plan, args, _tightest(plan, machine, (largest,), rows)),
        args.output_dir,
        {"tables": tables_bytes(tokens, 0)},
    )


def _scored(
    args: Any,
    named: Sequence[tuple[str, str]],
    kinds: Sequence[str],
    *,
    sampled: int,
    scored: int,
    held: int,
    of_each: bool,
) -> PlannedAnalysis:
    """The plan of an analysis that samples responses and scores two models along them.

    Args:
        args: its arguments.
        named: the models that are compared with the base: setting and name of each, the one that is planned first.
        kinds: whose responses are sampled: `rl`, `base`, `mixed`; none where they come from a file.
        sampled, scored: how often each problem's responses are sampled, and scored, for one model.
        held: how many of these are in memory together.
        of_each: whether this is done for each of the models.
    """
    machine = planned_machine(args)
    models = PlannedModels(args, machine)
    base = models.read("base_model", args.base_model, "base")
    (setting, name), *others = named
    rl = models.read(setting, name, "RL", beside=0 if args.one_model_at_a_time else base.on_device or 0)
    for other in others:
        models.find(*other)
    texts, given = _texts_of(args, models)
    count = len(named) if of_each else 1
    responses = len(given) if given else texts.problems * args.samples
    longest = max(len(one.completion_ids) for one in given) if given else texts.texts.response
    scored_tokens = count * (sum(len(one.completion_ids) for one in given) if given else scored * responses * longest)
    sampled_tokens = 0 if given else count * sampled * responses * longest
    engine_facts: list[str] = []
    scoring_rows = max(1, min(args.batch_tokens // texts.texts.longest, responses))
    if args.engine == VLLM:
        plan, device, engine_facts = _engine_plan(args, machine, (base, rl), texts.texts)
    else:
        plan, device = _two_models(args, machine, base, rl, kinds, texts.texts, responses, held), machine.words
    tightest = plan.tightest_phase
    scores = tightest in (READING, BASE_READING, COMPARING)
    pair = tightest == DECODING or (scores and not args.one_model_at_a_time)
    rows = scoring_rows if scores else _rows(args, responses)
    states = 0
    if args.one_model_at_a_time:
        found = models.found[args.base_model][1]
        size = StatesSize.of(found.config, str(models.dtype(found)).removeprefix("torch."))
        shown = getattr(args, "report_responses", 0)
        states = size.bytes_of(scored_tokens // count + min(scored_tokens // count, shown * longest))
    facts = [
        _models_fact(args, models, [(args.base_model, base), (name, rl)], machine)
        + (f"; {len(named)} models, one after the other" if len(named) > 1 else ""),
        _lengths_fact(texts),
        _tokens_fact(args, texts, sampled * count, scored_tokens, sampled_tokens, len(given)),
        _time_fact(args, machine, (base, rl), texts.texts, count * scored * responses),
    ]
    return PlannedAnalysis(
        plan,
        machine.launch,
        device,
        [*facts, *engine_facts],
        changes_of(plan, args, _tightest(plan, machine, (base, rl), rows, pair=pair, scores=scores)),
        args.output_dir,
        {"tables": tables_bytes(sampled_tokens, scored_tokens), "hidden states": states},
    )


def _two_models(
    args: Any,
    machine: Machine,
    base: ReadModel,
    rl: ReadModel,
    kinds: Sequence[str],
    texts: Texts,
    responses: int,
    held: int,
) -> MemoryPlan:
    """The memory of sampling by one model, or by both together, and of scoring by two."""
    one = args.one_model_at_a_time
    rows = _rows(args, responses)
    samplers = [model for kind, model in (("rl", rl), ("base", base)) if kind in kinds]
    largest = max(samplers, key=lambda model: model.sizes.weights, default=None)
    mixed = (DECODING,) if "mixed" in kinds else ()
    of_base = (BASE_READING,) if one else (READING, COMPARING)
    parts: list[Part] = []
    for model, phases in ((base, of_base), (rl, (READING, COMPARING))):
        samples = (SAMPLING,) if model is largest and not args.use_vllm else ()
        parts += model.weights(*samples, *mixed, *phases)
    if largest is not None and args.use_vllm:
        given = int(VLLM_SHARE * machine.capacity) if not machine.launch.on_cpu else machine.capacity
        parts += engine_parts((largest,), given, texts, devices=1, step=SCORED_TOKENS, phase=SAMPLING)[0]
    elif samplers:
        sampling = sampling_parts(samplers, rows, texts)
        parts += sampling
        if machine.launch.on_cpu:
            parts += kept_parts(sampling, (BASE_READING, READING, COMPARING))
    if mixed:
        parts += decoding_parts(base, rl, rows, texts, **_decoder(DRAFT))
    top_ps = getattr(args, "top_ps", [args.top_p])
    parts += scoring_parts(
        base,
        rl,
        args.batch_tokens,
        texts,
        responses * held,
        device=machine.device,
        truncates=min(top_ps) < 1,
        one_at_a_time=one,
    )
    phases = (*((SAMPLING,) if samplers else ()), *mixed, *((BASE_READING,) if one else ()), READING, COMPARING)
    parts = [part for part in parts if not part.phases or set(part.phases) & set(phases)]
    return MemoryPlan(parts=[*parts, *machine.own_parts], phases=phases, capacity=machine.capacity)


def _engine_plan(
    args: Any, machine: Machine, models: Sequence[ReadModel], texts: Texts
) -> tuple[MemoryPlan, str, list[str]]:
    """The memory of vLLM's engine, what has its capacity, and what is said of its caches."""
    devices = args.vllm_tensor_parallel_size if args.engine == VLLM else 1
    share = VLLM_SHARE if args.vllm_gpu_memory_utilization is None else args.vllm_gpu_memory_utilization
    given, words = machine.capacity, machine.words
    if not machine.launch.on_cpu:
        given = int(share * machine.capacity)
        words = f"vLLM's share of a GPU, {share:g} of {machine.capacity / GIB:.3g} GiB"
    parts, cached = engine_parts(models, given, texts, devices=devices, step=SCORED_TOKENS, phase=ENGINE)
    over = f" over {devices} devices" if devices > 1 else ""
    fact = (
        f"vLLM{over}: caches of {cached:,} tokens, which are {cached // texts.longest:,} texts of full length at once"
    )
    return MemoryPlan(parts=parts, phases=(ENGINE,), capacity=given), words, [fact]


def _tightest(
    plan: MemoryPlan,
    machine: Machine,
    models: Sequence[ReadModel],
    rows: int,
    *,
    pair: bool = False,
    scores: bool = False,
) -> Tightest:
    """Describe a plan's tightest phase; the arguments are those of `Tightest`."""
    wide = max(model.sizes.itemsize for model in models) == torch.float32.itemsize
    vllm = any(part.name == CACHES and part.bytes_in(plan.tightest_phase) for part in plan.parts)
    return Tightest(rows, machine.launch.on_cpu, wide, pair, scores, vllm or plan.tightest_phase == ENGINE)


def _decoder(engine: str) -> dict[str, Any]:
    """Return the keyword arguments of `decoding_parts` by which an engine of cross-sampling takes its memory."""
    return {
        "block": LONGEST_BLOCK if engine == DRAFT else 1,
        "spare": 1.0 if engine == LOCKSTEP else SPARE,
        "whole": engine == TREE,
    }


def _rows(args: Any, responses: int) -> int:
    """Responses that are sampled at once: whole problems, as far as they fit in a batch."""
    problems = max(1, args.batch_size // args.samples)
    return int(min(args.batch_size, problems * args.samples, responses))


def _texts_of(args: Any, models: PlannedModels) -> tuple[PlannedTexts, list[Trajectory]]:
    """The texts of an analysis, and the responses that a file gives, if one does."""
    file = getattr(args, "trajectories", "rl")
    if file in SAMPLED:
        loaded = lambda: [args.problem_set(args.dataset_split, args.size)]  # noqa: E731
        return planned_texts(args, models, [args.base_model], loaded), []
    setting, found = models.found[args.base_model]
    tokenizer = find_tokenizer(setting, args.base_model, found, trust_remote_code=args.trust_remote_code)
    given, _ = load_trajectories(file, tokenizer, _unjudged, chat_template_kwargs=args.template_kwargs)
    lengths = [len(one.completion_ids) for one in given]
    prompt = max(len(one.prompt_ids) for one in given)
    longest = max(len(one.prompt_ids) + len(one.completion_ids) for one in given)
    texts = Texts(prompt, longest - prompt, -(-sum(lengths) // len(lengths)))
    return PlannedTexts(texts, len({one.problem_id for one in given}), "the file's"), given


def _unjudged(completions: Sequence[Any], **columns: Any) -> list[None]:
    """The reward of responses whose lengths alone are wanted."""
    return [None] * len(completions)


def _models_fact(args: Any, models: PlannedModels, read: Sequence[tuple[str, ReadModel]], machine: Machine) -> str:
    """The models, and what they are planned for."""
    described = []
    for name, model in read:
        millions = model.sizes.parameters / 1e6
        dtype = str(models.dtype(models.found[name][1])).removeprefix("torch.")
        described.append(f"{name}, {millions:,.{int(millions < 10)}f}M parameters, {dtype}")
    devices = args.vllm_tensor_parallel_size if args.engine == VLLM else max(model.devices for _, model in read)
    processes = machine.launch.processes
    spread = f"{processes} process{'es' if processes > 1 else ''} over {devices} devices each"
    return f"{'; '.join(described)}; {spread if devices > 1 else machine.launch}"


def _lengths_fact(texts: PlannedTexts) -> str:
    lengths = texts.texts
    return (
        f"lengths: prompts of at most {lengths.prompt} tokens ({texts.words}), responses of at most "
        f"{lengths.response}, {lengths.mean_response} on average"
    )


def _tokens_fact(args: Any, texts: PlannedTexts, times: int, scored: int, sampled: int, given: int) -> str:
    scores = f"to score: at most {scored:,} tokens, by both models"
    if given:
        return f"{scores} ({given:,} responses of a file)"
    responses = times * texts.problems * args.samples
    return (
        f"to sample: {texts.problems} problems x {args.samples} x {times} = {responses:,} responses, at most "
        f"{sampled:,} tokens; {scores}"
    )


def _time_fact(args: Any, machine: Machine, pair: Sequence[ReadModel], texts: Texts, responses: int) -> str:
    """The time of scoring responses of mean length, each with its prompt."""
    length = texts.prompt + texts.mean_response
    operations = 0.0
    for model in pair:  # the head projects the responses' tokens alone
        head = 2.0 * model.sizes.head
        operations += responses * (length * (model.sizes.forward_flops(length) - head) + texts.mean_response * head)
    operations /= machine.launch.processes
    time = time_words(operations, args.plan_tflops, args.plan_utilization, on_cpu=machine.launch.on_cpu)
    return f"scoring: {operations:.2e} operations a process, {time}"
