"""Memory of an analysis, part by part, in the phases that a process goes through.

Everything is counted at its most: texts as long as they may be, and caches at the moment when they are copied. What is
left out is small beside it: tables while they are written, and numbers over a finished table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tokenshift.analysis.divergence.token_statistics import workspace_bytes
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

FIRST_USE = 117 * 2**20
"""Bytes that libraries take on a CPU when they are first used, beyond their imports; measured: 62 MiB, of which the
tokenizer and the data have most, and 55 MiB of the libraries' files."""

CACHES = "vLLM's caches"
"""The part that takes the rest of what vLLM is given."""

RESPONSE_TOKEN_BYTES = 40
"""Bytes of a token in a list of Python's, in which every process holds all responses that are scored."""


class Forward(Protocol):
    """Tells what forward passes take; `ForwardPass` does."""

    def of(self, rows: int, length: int) -> int:
        """Bytes that a pass over so many sequences of so many tokens each has alive at once."""


@dataclass(frozen=True)
class ReadModel:
    """One of the models.

    Attributes:
        name: what it is called, `base` or `RL`.
        sizes: its sizes.
        forward: what its forward passes take.
        on_device: bytes of its weights on the device that has the most of them; all of them when None.
        waiting: bytes of its weights that wait in host memory.
        devices: those that share its layers, and with them the caches of keys and values.
        spread: where its weights are, in words.
    """

    name: str
    sizes: ModelSizes
    forward: Forward
    on_device: int | None = None
    waiting: int = 0
    devices: int = 1
    spread: str = ""

    def weights(self, *phases: str) -> list[Part]:
        """Its weights on the device, and those that wait for it."""
        size = self.sizes.weights if self.on_device is None else self.on_device
        note = f"{self.note}, {self.spread}" if self.spread else self.note
        parts = [Part(f"weights of {self.name}", size, phases, note=note)]
        if self.waiting:
            parts.append(Part(f"weights of {self.name}", self.waiting, phases, on_host=True, note="read when used"))
        return parts

    @property
    def cache_per_token(self) -> int:
        """Bytes of keys and values per token on a device."""
        return -(-self.sizes.cache_per_token // self.devices)

    @property
    def note(self) -> str:
        """The size of its weights in words."""
        return f"{self.sizes.parameters / 1e9:.3g}B x {self.sizes.itemsize} bytes"


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
    cache = max(model.cache_per_token for model in models)
    vocabulary = max(model.sizes.vocabulary for model in models)
    read = max(model.forward.of(rows, texts.prompt) for model in models)
    return [
        Part("KV cache", rows * slots * cache, (phase,), note=f"{rows} x {slots} slots for {texts.longest} tokens"),
        Part("logits of a step", rows * vocabulary * 4 * DRAW_COPIES, (phase,)),
        Part("activations", read, (phase,), note=f"{rows} x {texts.prompt} tokens of prompts"),
    ]


def kept_parts(sampling: Sequence[Part], phases: tuple[str, ...]) -> list[Part]:
    """Count the caches of `generate` that a CPU's allocator keeps in later phases: blocks below 32 MiB go back late.

    Args:
        sampling: the parts of sampling.
        phases: the later phases.
    """
    size = sum(part.size for part in sampling if part.name == "KV cache")
    return [Part("kept of the KV cache", size, phases, note="at most, by the allocator")] if size else []


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
    """Memory of scoring responses by two models, without their weights.

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
    both = (READING, COMPARING)
    base_state, rl_state = (tokens * model.sizes.hidden * model.sizes.itemsize for model in (base, rl))
    readers = (rl,) if one_at_a_time else (base, rl)
    reading = max(model.forward.of(rows, texts.longest) for model in readers)
    note = f"{rows} x {texts.longest} tokens"
    parts = [
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
            (BASE_READING, *both),
            on_host=on_host,
            note=f"{responses}, as lists of token ids",
        ),
    ]
    if one_at_a_time:
        parts += [
            Part("activations", base.forward.of(rows, texts.longest), (BASE_READING,), note=note),
            Part("states of base", base_state, (BASE_READING,)),
            Part("LM head of base", base.sizes.head * base.sizes.itemsize, both, note="read back with its states"),
        ]
    return [part for part in parts if part.size]


def decoding_parts(
    base: ReadModel,
    rl: ReadModel,
    rows: int,
    texts: Texts,
    *,
    block: int,
    spare: float,
    whole: bool,
    phase: str = DECODING,
) -> list[Part]:
    """Memory of two policies that decode together, without their weights.

    Args:
        base, rl: the models.
        rows: responses at once.
        texts: their tokens.
        block: tokens whose logits are in memory at once, of each row.
        spare: slots of the caches per token of the longest text.
        whole: whether texts that have begun are read again from their first token on.
        phase: when.
    """
    slots = int(spare * texts.longest)
    reserved = slots_for(slots, slots)
    cache = base.cache_per_token + rl.cache_per_token
    layer = max(model.cache_per_token // model.sizes.layers for model in (base, rl))
    vocabulary = max(base.sizes.vocabulary, rl.sizes.vocabulary)
    read = texts.longest if whole else texts.prompt
    forward = max(base.forward.of(rows, read), rl.forward.of(rows, read))
    note = f"2 x {rows} x {reserved} slots for {texts.longest} tokens"
    step = f"{rows} x {block} tokens" if block > 1 else f"{rows} tokens"
    return [
        Part("KV caches", rows * reserved * cache, (phase,), note=note),
        Part("copied caches", rows * slots * layer, (phase,), note="a layer, while rows end and others begin"),
        Part("logits of a step", rows * block * vocabulary * 4 * DECIDE_COPIES, (phase,), note=step),
        Part("activations", forward, (phase,), note=f"{rows} x {read} tokens"),
    ]


def engine_parts(
    models: Sequence[ReadModel], given: int, texts: Texts, *, devices: int, step: int, phase: str
) -> tuple[list[Part], int]:
    """Memory of a vLLM engine with one model or with a pair, on each of its devices.

    Args:
        models: those that stand in it.
        given: bytes of a device that it is given.
        texts: tokens of the texts.
        devices: those that share the models.
        step: tokens that it reads in a step.
        phase: when.

    Returns:
        The parts, and the tokens for whose keys and values there is room. The parts take what is given, and more where
        there is no room for the longest text.
    """
    spread = f", 1/{devices} each" if devices > 1 else ""
    length = max(1, min(step, texts.longest))
    read = -(-step // length) * max(model.forward.of(1, length) for model in models)
    parts = [
        *(
            Part(
                f"weights of {model.name}", -(-model.sizes.weights // devices), (phase,), note=f"{model.note}{spread}"
            )
            for model in models
        ),
        Part("activations", read, (phase,), note=f"{step} tokens a step"),
    ]
    per_token = -(-sum(model.sizes.cache_per_token for model in models) // devices)
    left = given - sum(part.size for part in parts)
    if left >= texts.longest * per_token:
        caches = Part(CACHES, left, (phase,), note="the rest of its memory")
        return [*parts, caches], left // per_token
    note = f"of one text of {texts.longest} tokens"
    return [*parts, Part("KV cache", texts.longest * per_token, (phase,), note=note)], max(0, left // per_token)
