"""Reading without a cache and without padding: what every faster way of decoding must agree with.

Models keep the tokens that they have read in caches of many kinds, and not every one leaves padding out of account.
Instead of a list of architectures, a way of decoding is tried on a few tokens of the model itself: it is taken if its
logits are those of plain reading.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache

from tokenshift.analysis.divergence.hidden_states import model_name, without_cache
from tokenshift.analysis.divergence.own_logits import FAR, check_finite
from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.token_ids import context_length

_Answer = TypeVar("_Answer")

TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Mean distance of logits, in standard deviations of them, below which two ways to compute them agree, by dtype."""

FEWEST = 16
"""Logits of a row that count at least, however far they are below the largest."""

CACHE_WINDOWS = ("sliding_window", "attention_chunk_size")
"""Names that configs have for the number of tokens that a layer's cache keeps."""

SHORT_WINDOW = 3
"""The window, in tokens, with which ways of decoding are tried on rows of a few tokens."""

SHORT_FLOOR, STRONG_SCALE = 3, 1.0
"""Tokens after which a temperature of attention grows, and its least strength, where ways of decoding are tried."""

SPARE = 9
"""Tokens of the longest row of a trial."""

_KNOWN: dict[str, WeakKeyDictionary[Any, Any]] = {}
"""Answers to questions about models: name of the question -> model -> answer."""


def remembered(model: Any, question: str, answer: Callable[[], _Answer]) -> _Answer:
    """The answer to a question about a model, found once and kept as long as the model is."""
    known: WeakKeyDictionary[Any, _Answer] = _KNOWN.setdefault(question, WeakKeyDictionary())
    if model not in known:
        known[model] = answer()
    return known[model]


def takes(model: Any, name: str) -> bool:
    """Whether a model's forward has an argument of this name."""
    return name in remembered(model, "arguments", lambda: set(inspect.signature(model.forward).parameters))


@torch.no_grad()
def next_logits(model: Any, rows: Sequence[list[int]]) -> torch.Tensor:
    """Logits `(B, V)` after each row of token ids, read from its first token on, beside rows of its length alone."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(index)
    read = []
    for indices in by_length.values():
        ids = torch.tensor([rows[index] for index in indices], device=input_device(model))
        options = without_cache(model)
        if takes(model, "attention_mask"):
            options["attention_mask"] = torch.ones_like(ids)
        if takes(model, "logits_to_keep"):
            options["logits_to_keep"] = 1
        read.append(model(input_ids=ids, **options).logits[:, -1])
    order = [index for indices in by_length.values() for index in indices]
    return torch.cat(read)[torch.tensor(order, device=input_device(model)).argsort()]


def trial_rows(model: Any, lengths: Sequence[int]) -> list[list[int]]:
    """Rows of token ids of these lengths, spread over the model's vocabulary, without its special tokens."""
    config = model.config.get_text_config()
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "mask_token_id")
    special: set[Any] = set()
    for value in (getattr(source, name, None) for name in names for source in (config, model.config)):
        special |= set(value) if isinstance(value, list) else {value}
    plain = [token for token in range(min(config.vocab_size, 4096)) if token not in special]
    generator = torch.Generator().manual_seed(0)
    return [
        [plain[index] for index in torch.randint(len(plain), (length,), generator=generator).tolist()]
        for length in lengths
    ]


def agree(first: torch.Tensor, second: torch.Tensor, model: Any) -> bool:
    """Whether logits `(N, V)` of two ways to compute them are the same up to the rounding of the model's dtype.

    In half precision the sixth of ten rows decides, in the order of their distances: rounding may send single tokens
    of a mixture to another expert, and what is really wrong is so in most rows.
    """
    half = model.dtype not in (torch.float32, torch.float64) or getattr(model, "is_quantized", False)
    tolerance = TOLERANCES.get(model.dtype, 0.05) if not getattr(model, "is_quantized", False) else 0.05
    if input_device(model).type != "cpu":
        tolerance = max(tolerance, 1e-3)  # convolutions round to fewer digits there
    first, second = first.double(), second.double()
    finite = second.isfinite()
    if not finite.any() or not torch.equal(first.isfinite(), finite):
        return False
    columns = finite.reshape(-1, finite.shape[-1]).all(dim=0)  # a model may mask some of its tokens
    first, second = first[..., columns], second[..., columns]
    distances = _distances(first, second)
    return float(distances.quantile(0.6) if half else distances.mean()) <= tolerance


def _distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The mean distances `(N,)` of rows of logits `(N, V)`, in standard deviations of the second's rows.

    Logits far below the row's largest do not count: those of tokens that a model all but masks would hide the rest.
    """
    depth = second.amax(dim=-1, keepdim=True) - second
    nearest = depth.topk(min(FEWEST, depth.shape[-1]), dim=-1, largest=False).values[..., -1:]
    near = depth <= nearest.clamp_min(FAR)
    count = near.sum(dim=-1)
    mean = (second * near).sum(dim=-1, keepdim=True) / count.unsqueeze(-1)
    spread = (((second - mean) * near).square().sum(dim=-1) / (count - 1).clamp_min(1)).sqrt()
    return ((first - second).abs() * near).sum(dim=-1) / count / spread.clamp_min(1e-30)


Trial = Callable[[Any, int], tuple[torch.Tensor, torch.Tensor]]
"""Decodes a few tokens, in rows longer by a number: the logits `(N, V)` of a way, and those of plain reading."""


def is_right(model: Any, way: str, trial: Trial) -> bool:
    """Whether a way of decoding gives a model's own logits; tried once per model.

    A cache that drops what is behind a window is tried beyond it as well: a model may name a window that its plain
    reading does not have. Windows of a few tokens tell that for most models; where they do not, the windows that the
    model has are tried. So is a temperature of attention that changes every thousands of tokens (Llama 4), which may
    count slots of the cache, padding among them, and not tokens.

    Args:
        model: a causal LM in eval mode.
        way: the name of the way.
        trial: tries it.
    """

    def agrees(more: int = 0) -> bool:
        try:
            return agree(*trial(model, more), model)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a model's own code raises where it does not know this way
            return False

    @torch.no_grad()
    def tried() -> bool:
        if not agrees():
            return False
        with _short_floors(model) as floors:
            if floors and not agrees():
                return False
        longest = _longest_window(model)
        if longest is None:
            return True
        with _short_windows(model):
            if agrees():
                return True
        context = context_length(model.config)
        more = longest if context is None else min(longest, context - SPARE)
        return agrees(max(more, 0))

    return remembered(model, way, tried)


def _longest_window(model: Any) -> int | None:
    """The most tokens that a layer of a model's cache keeps; None where each keeps all."""
    layers = DynamicCache(config=model.config).layers
    windows = [window for layer in layers if type(window := getattr(layer, "sliding_window", None)) is int]
    return max(windows, default=None)


@contextmanager
def _short_windows(model: Any) -> Iterator[None]:
    """Let the windows that a model's config names be `SHORT_WINDOW` tokens long."""
    config = model.config.get_text_config(decoder=True)
    given = {name: value for name in CACHE_WINDOWS if type(value := getattr(config, name, None)) is int}
    try:
        for name in given:
            setattr(config, name, SHORT_WINDOW)
        yield
    finally:
        for name, value in given.items():
            setattr(config, name, value)


@contextmanager
def _short_floors(model: Any) -> Iterator[bool]:
    """Let temperatures of attention change every `SHORT_FLOOR` tokens; whether the model has any."""
    modules = [module for module in model.modules() if getattr(module, "attn_temperature_tuning", False)]
    given = [(module, module.floor_scale, module.attn_scale) for module in modules if hasattr(module, "floor_scale")]
    try:
        for module, _, scale in given:
            module.floor_scale, module.attn_scale = SHORT_FLOOR, max(scale, STRONG_SCALE)
        yield bool(given)
    finally:
        for module, floor, scale in given:
            module.floor_scale, module.attn_scale = floor, scale


def check_causal(model: Any) -> None:
    """Refuse a model whose logits at a position change with the tokens after it, or are not finite.

    Raises:
        ValueError: for such a model.
    """

    @torch.no_grad()
    def same() -> bool:
        first, second = trial_rows(model, (7, 7))
        ids = torch.tensor([first, first[:4] + second[4:]], device=input_device(model))
        logits = model(input_ids=ids, **without_cache(model)).logits[:, :4]
        check_finite(model, logits)
        return agree(logits[0], logits[1], model)

    if not remembered(model, "reading from left to right", same):
        raise ValueError(
            f"{model_name(model)!r} ({type(model).__name__}) is not a causal language model: its logits at a position "
            "change with the tokens after it, so that a response has no probability token by token. Set "
            "is_decoder=true in its config if it has that."
        )
