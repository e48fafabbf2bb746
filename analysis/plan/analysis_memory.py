"""Memory of an analysis, part by part, in the phases that a process goes through.

Everything is counted at its most: texts as long as they may be, and caches at the moment when they are copied. What is
left out is small beside it: tables while they are written, and numbers over a finished table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tokenshift.analysis.divergence.token_statistics import workspace_bytes
from tokenshift.analysis.plan.forward_pass import ForwardBytes
from tokenshift.analysis.plan.model_sizes import ModelSizes
from tokenshift.analysis.plan.parts import Part
from tokenshift.analysis.sampling.reserved_cache import slots_for

SAMPLING, READING, BASE_READING, COMPARING = "sampling", "reading", "base reads", "comparing"
"""A model answers; both read the responses, or the base does before the other is loaded; their distributions are
compared."""

DECODING = "decoding"
"""Two policies decode together."""

DRAW_COPIES = 12
"""Float32 matrices of a step's logits alive at once, about, while tokens are drawn: the model's own, their copies, and
noise in float64 where a whole vocabulary is drawn from."""

DECIDE_COPIES = 24
"""The same while two policies' tokens are drawn and the truncated JS between them is computed."""

RESPONSE_TOKEN_BYTES = 40
"""Bytes of a token in a list of Python's, in which every process holds all responses that are scored."""


@dataclass(frozen=True)
class ReadModel:
    """One of the models.

    Attributes:
        name: what it is called, `base` or `RL`.
        sizes: its sizes.
        forward: what its forward pass takes.
        share: devices that its weights are spread over.
        waiting: bytes of its weights that wait in host memory.
    """

    name: str
    sizes: ModelSizes
    forward: ForwardBytes
    share: int = 1
    waiting: int = 0

    def weights(self, *phases: str) -> list[Part]:
        """Its weights on the device, and those that wait for it."""
        each = -(-(self.sizes.weights - self.waiting) // self.share)
        parts = [Part(f"weights of {self.name}", each, phases, note=self.weights_note(self.share))]
        if self.waiting:
            parts.append(Part(f"weights of {self.name}", self.waiting, phases, on_host=True, note="read when used"))
        return parts

    def weights_note(self, share: int) -> str:
        """The size of its weights in words, shared by so many devices."""
        spread = f", 1/{share} each" if share > 1 else ""
        return f"{self.sizes.parameters / 1e9:.3g}B x {self.sizes.itemsize} bytes{spread}"


@dataclass(frozen=True)
class Texts:
    """Tokens of the texts of an analysis.

    Attributes:
        prompt: of the longest prompt.
        response: of the longest response.
        mean_response: of a response on average.
    """

    prompt: int
    response: int
    mean_response: int

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and its response."""
        return self.prompt + self.response


def sampling_parts(models: Sequence[ReadModel], rows: int, texts: Texts, phase: str = SAMPLING) -> list[Part]:
    """Memory of `generate` with one of some models at a time, without weights.

    Args:
        models: those that answer, of which the one counts that takes the most.
        rows: responses at once.
        texts: their tokens.
        phase: when.
    """
    slots = slots_for(texts.prompt, texts.longest)
    cache = max(model.sizes.cache_per_token for model in models)
    vocabulary = max(model.sizes.vocabulary for model in models)
    read = max(model.forward.of(rows, texts.prompt) for model in models)
    return [
        Part("KV cache", rows * slots * cache, (phase,), note=f"{rows} x {slots} slots for {texts.longest} tokens"),
        Part("logits of a step", rows * vocabulary * 4 * DRAW_COPIES, (phase,)),
        Part("activations", read, (phase,), note=f"{rows} x {texts.prompt} tokens of prompts"),
    ]


def scoring_parts(
    base: ReadModel,
    rl: ReadModel,
    batch_tokens: int,
    texts: Texts,
    responses: int,
    *,
    device: torch.device,
    truncates: bool,
    one_at_a_time: bool = False,
) -> list[Part]:
    """Memory of scoring responses by two models, with their weights.

    Args:
        base, rl: the models.
        batch_tokens: tokens of a forward pass.
        texts: tokens of the texts that are scored.
        responses: how many there are.
        device: where states are.
        truncates: whether the compared distributions are truncated.
        one_at_a_time: whether the base reads all before the other model is loaded.
    """
    rows = max(1, min(batch_tokens // texts.longest, responses))
    tokens = rows * texts.mean_response
    on_host = device.type != "cpu"
    base_reads, both = (BASE_READING,) if one_at_a_time else (READING,), (READING, COMPARING)
    base_state, rl_state = (tokens * model.sizes.hidden * model.sizes.itemsize for model in (base, rl))
    reading = max(base.forward.of(rows, texts.longest), rl.forward.of(rows, texts.longest))
    note = f"{rows} x {texts.longest} tokens"
    parts = [
        *base.weights(*(base_reads if one_at_a_time else both)),
        *rl.weights(*both),
        Part("activations", reading, (READING,), note=note),
        Part("states of base", base_state, both, note=f"{tokens} tokens"),
        Part("states of RL", rl_state, (COMPARING,)),
        Part(
            "statistics",
            workspace_bytes(device, min(base.sizes.vocabulary, rl.sizes.vocabulary), tokens, truncates=truncates),
            (COMPARING,),
            note="logits of a chunk",
        ),
        Part(
            "responses",
            responses * (texts.prompt + texts.mean_response) * RESPONSE_TOKEN_BYTES,
            (*base_reads, *both) if one_at_a_time else both,
            on_host=on_host,
            note=f"{responses}, as lists of token ids",
        ),
    ]
    if one_at_a_time:
        parts += [
            Part("activations", base.forward.of(rows, texts.longest), base_reads, note=note),
            Part("states of base", base_state, base_reads),
            Part("LM head of base", base.sizes.head * base.sizes.itemsize, both, note="read back with its states"),
        ]
    return [part for part in parts if part.size]


def decoding_parts(
    base: ReadModel, rl: ReadModel, rows: int, texts: Texts, *, block: int, spare: float, whole: bool
) -> list[Part]:
    """Memory of two policies that decode together, with their weights.

    Args:
        base, rl: the models.
        rows: responses at once.
        texts: their tokens.
        block: tokens whose logits are in memory at once, of each row.
        spare: slots of the caches per token of the longest text.
        whole: whether texts that have begun are read again from their first token on.
    """
    slots = int(spare * texts.longest)
    reserved = slots_for(slots, slots)
    cache = base.sizes.cache_per_token + rl.sizes.cache_per_token
    vocabulary = max(base.sizes.vocabulary, rl.sizes.vocabulary)
    read = texts.longest if whole else texts.prompt
    forward = max(base.forward.of(rows, read), rl.forward.of(rows, read))
    return [
        *base.weights(),
        *rl.weights(),
        Part("KV caches", rows * reserved * cache, note=f"2 x {rows} x {reserved} slots for {texts.longest} tokens"),
        Part("copied caches", rows * slots * cache, note="while rows end and others begin"),
        Part(
            "logits of a step",
            rows * block * vocabulary * 4 * DECIDE_COPIES,
            note=f"{rows} x {block} tokens" if block > 1 else f"{rows} tokens",
        ),
        Part("activations", forward, note=f"{rows} x {read} tokens"),
    ]


@dataclass(frozen=True)
class EngineRoom:
    """Memory that vLLM has on each device.

    Attributes:
        parts: what it holds at least: weights, a step's activations, and the caches of one text.
        capacity: bytes that it is given.
        cached: tokens for whose keys and values there is room, in each model.
    """

    parts: list[Part]
    capacity: int
    cached: int


def engine_room(
    models: Sequence[ReadModel], capacity: int, texts: Texts, *, devices: int, step: int, phase: str
) -> EngineRoom:
    """Memory of a vLLM engine with one model or with a pair.

    Args:
        models: those that stand in it.
        capacity: bytes of each device that it is given.
        texts: tokens of the texts.
        devices: those that share the models.
        step: tokens that it reads in a step.
        phase: when.
    """
    weights = [
        Part(
            f"weights of {model.name}",
            -(-model.sizes.weights // devices),
            (phase,),
            note=model.weights_note(devices),
        )
        for model in models
    ]
    read = max(model.forward.of(1, min(step, texts.longest)) for model in models)
    read = read * -(-step // max(1, min(step, texts.longest)))
    per_token = -(-sum(model.sizes.cache_per_token for model in models) // devices)
    least = Part("KV cache", texts.longest * per_token, (phase,), note=f"of one text of {texts.longest} tokens")
    parts = [*weights, Part("activations", read, (phase,), note=f"{step} tokens a step"), least]
    left = capacity - sum(part.size for part in parts if part is not least)
    return EngineRoom(parts, capacity, max(0, left // per_token))
