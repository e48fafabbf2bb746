"""Responses packed for the report's explorer: small, decoded one at a time in the browser.

Texts, ranks and the JS that shades tokens (float32) are exact. Other divergences and entropies are off by 0.023 % at
most, log-probabilities by 0.00025, so probabilities by 0.025 %: the page shows three digits.

A packed response is the zlib stream of arrays one after another, each as byte planes: all lowest bytes, then all next
ones, and so on (bytes of one significance beside each other compress well). `pack_response` names the arrays in their
order; `decodeResponse` in `static/explorer.js` reads them.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_DIVERGENCES_AND_ENTROPIES = ("forward_kl", "reverse_kl", "entropy_base", "entropy_rl")
_LOG_PROBABILITIES = ("logp_base", "logp_rl")
_RANKS = ("rank_base", "rank_rl")

BESIDE = {"js": "js_top_p", "js_top_p": "js"}
"""The JS that stands in the panel beside the one that shades the tokens: truncated beside full, and full beside it."""

EXPLORED_VALUES = (*BESIDE, *_DIVERGENCES_AND_ENTROPIES, *_LOG_PROBABILITIES, *_RANKS)
"""Values that the explorer shows of each token, in the order of the packed arrays."""

VALUE_FLOOR, VALUE_CEILING = 1e-9, 1e4
"""Smaller values are packed as 0, larger finite ones as the ceiling."""
VALUE_STEP = float(np.log(VALUE_CEILING / VALUE_FLOOR)) / 65532
LOGP_STEP = 1 / 2048

BELOW, NEGATIVE_INFINITY = 65533, 65534
"""Codes of log-probabilities below -65532 * LOGP_STEP, about -32."""
INFINITY = 65534
MISSING = 65535
"""Code of NaN, for values and for log-probabilities."""

NEW = 255
"""Instead of an index in the base's list: the token of the RL model's list is not in the base's."""


@dataclass(frozen=True)
class ExploredResponse:
    """A response of T tokens, with the numbers of both models at each of them.

    Attributes:
        problem_id: The problem.
        sample_id: Which of the problem's samples the response is.
        trajectory: Which policy produced the response, or what it is for.
        correct: The verdict; None where there is none.
        prompt: Text before the response.
        tokens: T texts of the generated tokens.
        values: `(T,)` for each name: `js`, `js_top_p`, `forward_kl`, `reverse_kl`, `entropy_base`, `entropy_rl`,
            `logp_base`, `logp_rl`, all in nats, and `rank_base`, `rank_rl`, 1 for the most probable token.
        top_ids: `(2, T, k)` ids of the base's k most probable tokens, then of the RL model's, most probable first; k
            is 255 at most.
        top_logps: `(2, 2, T, k)` log-probabilities of `top_ids`, nats: [whose list][under the base, under RL]. Those
            of a token in both lists are read from the base's list alone.

    Raises:
        ValueError: If shapes do not fit.
    """

    problem_id: int
    sample_id: int
    trajectory: str
    correct: bool | None
    prompt: str
    tokens: Sequence[str]
    values: Mapping[str, np.ndarray]
    top_ids: np.ndarray
    top_logps: np.ndarray

    def __post_init__(self) -> None:
        length, k = len(self.tokens), self.top_ids.shape[-1]
        where = f"problem {self.problem_id}, sample {self.sample_id}"
        for name in EXPLORED_VALUES:
            if np.shape(self.values[name]) != (length,):
                raise ValueError(f"{where}: {name} has shape {np.shape(self.values[name])}, tokens are {length}")
        if self.top_ids.shape != (2, length, k) or self.top_logps.shape != (2, 2, length, k) or k > NEW:
            raise ValueError(
                f"{where}: top_ids {self.top_ids.shape} and top_logps {self.top_logps.shape} "
                f"must be (2, {length}, k) and (2, 2, {length}, k) with k at most {NEW}"
            )


@dataclass
class TextTable:
    """Distinct token texts, numbered in the order in which they first occur.

    Attributes:
        token_text: Returns a token id's text; asked once for each id.
        texts: The texts that have a number, in order.
    """

    token_text: Callable[[int], str]
    texts: list[str] = field(default_factory=list)
    _number_of_text: dict[str, int] = field(default_factory=dict)
    _number_of_id: dict[int, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        """The text's index in `texts`, to which it is added if it is new."""
        if text not in self._number_of_text:
            self._number_of_text[text] = len(self.texts)
            self.texts.append(text)
        return self._number_of_text[text]

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Indices in `texts` of the texts of token ids, in the shape of `ids`."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        for token_id in distinct.tolist():
            if token_id not in self._number_of_id:
                self._number_of_id[token_id] = self.number(self.token_text(token_id))
        numbers = np.array([self._number_of_id[token_id] for token_id in distinct.tolist()], dtype=np.uint32)
        return numbers[inverse.reshape(ids.shape)]


def code_values(values: np.ndarray) -> np.ndarray:
    """Code values >= 0 as uint16: 0 for those up to `VALUE_FLOOR`, then equal steps of the logarithm."""
    values = np.asarray(values, dtype=np.float64)
    clipped = np.clip(np.nan_to_num(values, nan=0.0), VALUE_FLOOR, VALUE_CEILING)
    codes = np.rint(np.log(clipped / VALUE_FLOOR) / VALUE_STEP).astype(np.int64) + 1
    codes[values <= VALUE_FLOOR] = 0
    codes[np.isposinf(values)] = INFINITY
    codes[np.isnan(values)] = MISSING
    return codes.astype(np.uint16)


def code_logps(logps: np.ndarray) -> np.ndarray:
    """Code log-probabilities as uint16, in steps of `LOGP_STEP` down from 0."""
    logps = np.asarray(logps, dtype=np.float64)
    steps = np.rint(np.clip(np.nan_to_num(-logps, nan=0.0), 0, BELOW * LOGP_STEP) / LOGP_STEP)
    codes = steps.astype(np.int64)
    codes[np.isneginf(logps)] = NEGATIVE_INFINITY
    codes[np.isnan(logps)] = MISSING
    return codes.astype(np.uint16)


def planes(values: np.ndarray, width: int) -> bytes:
    """Unsigned integers, flattened, as `width` byte planes, the lowest first."""
    return b"".join(((values.ravel() >> (8 * byte)) & 255).astype(np.uint8).tobytes() for byte in range(width))


def pack_js(responses: Sequence[ExploredResponse], shaded: str = "js") -> bytes:
    """Pack a JS of all responses' tokens in order, float32, which lists, filters and thresholds need at once.

    Args:
        responses: the responses.
        shaded: the JS that shades the tokens, `js` or `js_top_p`.
    """
    js = np.concatenate(
        [np.asarray(r.values[shaded], dtype=np.float32) for r in responses] or [np.empty(0, np.float32)]
    )
    return zlib.compress(planes(js.view(np.uint32), 4), 9)


def pack_response(response: ExploredResponse, table: TextTable, shaded: str = "js") -> bytes:
    """Pack a response but for the JS that shades it and what the list shows of it.

    Top lists are packed rank by rank, `(k, T)`.

    Args:
        response: the response.
        table: numbers of texts.
        shaded: the JS that shades the tokens, which `pack_js` packs; the other one is packed here.
    """
    ids = response.top_ids.swapaxes(1, 2)  # (2, k, T)
    codes = code_logps(response.top_logps).swapaxes(2, 3)  # (2, 2, k, T)
    shared = ids[1][:, None] == ids[0][None]  # (RL's k, base's k, T)
    in_base = np.where(shared.any(axis=1), shared.argmax(axis=1), NEW) if shared.size else np.empty(ids[1].shape, int)
    new = in_base == NEW  # (k, T)
    # where RL changed little the difference is small, and packs better than a second log-probability
    change_in_base, change_in_new = (codes[0][1] - codes[0][0]), (codes[1][0] - codes[1][1])[new]
    arrays = [
        (np.array([table.number(text) for text in response.tokens], dtype=np.uint32), 4),
        *((code_values(response.values[name]), 2) for name in (BESIDE[shaded], *_DIVERGENCES_AND_ENTROPIES)),
        *((code_logps(response.values[name]), 2) for name in _LOG_PROBABILITIES),
        *((np.asarray(response.values[name], dtype=np.uint32), 4) for name in _RANKS),
        (table.numbers(ids[0]), 4),
        (codes[0][0], 2),
        (change_in_base, 2),  # RL's code less the base's, modulo 65536
        (in_base.astype(np.uint8), 1),
        # of the tokens in RL's list alone, in the order of `in_base`
        (table.numbers(ids[1][new]), 4),
        (codes[1][1][new], 2),
        (change_in_new, 2),  # the base's code less RL's, modulo 65536
    ]
    return zlib.compress(b"".join(planes(values, width) for values, width in arrays), 9)
