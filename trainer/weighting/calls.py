"""Calls of a user's weighting or divergence: with a check of what comes back, on a trial batch and in training."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tokenshift.analysis.registry import RAISED_BY_USERS, UserFunctionError
from tokenshift.trainer.weighting.options import location
from tokenshift.trainer.weighting.registry import Divergence, Weighting
from tokenshift.trainer.weighting.tokens import Tokens, random_logps, random_tokens


def try_out(weighting: Weighting, options: Mapping[str, Any], divergence: Divergence) -> None:
    """Call both functions on a few random tokens, without touching the run's random numbers.

    Raises:
        ValueError: in one line, if one of them raises or returns something else than it should.
    """
    with torch.random.fork_rng(devices=[]):
        values = None
        if divergence.function is not None:
            values = sampled_divergence(divergence, *random_logps(torch.Generator().manual_seed(0)), "a trial batch")
            if not bool(values.isfinite().all()):
                raise _wrong(divergence, values[~values.isfinite()], len(values), "finite", "a trial batch")
        if weighting.function is not None:
            tokens = random_tokens(weighting.needs, values, divergence.signed)
            token_values(weighting, options, tokens, "a trial batch")


def sampled_divergence(
    divergence: Divergence, logps: torch.Tensor, old_logps: torch.Tensor, where: str
) -> torch.Tensor:
    """The divergence of the sampled tokens `(N,)`, from their log-probabilities `(N,)`.

    Args:
        where: the batch, for messages.

    Raises:
        ValueError: if the function raises, or returns another shape or type, NaN, or negative numbers without having
            said so. It is not blamed for tokens whose log-probabilities are not finite.
    """
    assert divergence.function is not None
    values = _call(divergence, lambda function: function(logps, old_logps), where)
    _check_tensor(divergence, values, logps, where, floating=True)
    allowed = ~values.isnan() if divergence.signed else values >= 0
    wrong = ~allowed & logps.isfinite() & old_logps.isfinite()
    if bool(wrong.any()):
        wanted = "a number" if divergence.signed else "at least 0 (else register it with signed=True)"
        raise _wrong(divergence, values[wrong], len(values), wanted, where)
    return values.float()


def token_values(weighting: Weighting, options: Mapping[str, Any], tokens: Tokens, where: str) -> torch.Tensor:
    """The weighting's values of the valid tokens `(N,)`, float32.

    Args:
        options: by name.
        where: the batch, for messages.

    Raises:
        ValueError: if the function raises, or returns another shape or type, or values that its kind does not allow.
            It is not blamed for tokens whose log-probabilities or divergences are not finite.
    """
    with torch.no_grad():
        values = _call(weighting, lambda function: function(tokens, **options), where)
    kind = weighting.behaviour
    _check_tensor(weighting, values, tokens.logps, where, floating=kind.floating)
    valid = values[tokens.mask]
    finite = tokens.logps.isfinite() & tokens.old_logps.isfinite()
    if tokens.divergence is not None:
        finite &= tokens.divergence.isfinite()
    finite = finite[tokens.mask]
    wrong = ~kind.allowed(valid) & finite
    if bool(wrong.any()):
        raise _wrong(weighting, valid[wrong], len(valid), kind.wanted, where)
    return valid.float()


def _says(entry: Weighting | Divergence) -> str:
    setting = "advantage_weighting" if isinstance(entry, Weighting) else "divergence"
    assert entry.function is not None
    return f"{setting}={entry.name!r}: the function {location(entry.function)}"


def _call(entry: Any, call: Callable[[Any], Any], where: str) -> Any:
    try:
        return call(entry.function)
    except RAISED_BY_USERS as error:  # whatever the user's function raises
        file = getattr(getattr(entry.function, "__code__", None), "co_filename", None)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        line = f" in line {lines[-1]}" if lines else ""
        reason = " ".join(str(error).split())
        raise UserFunctionError(f"{_says(entry)} raised {type(error).__name__}{line} on {where}: {reason}") from error


def _check_tensor(entry: Any, values: Any, like: torch.Tensor, where: str, *, floating: bool) -> None:
    if not isinstance(values, torch.Tensor):
        raise UserFunctionError(
            f"{_says(entry)} returned a {type(values).__name__} on {where}; it must return a tensor."
        )
    if values.shape != like.shape:
        raise UserFunctionError(
            f"{_says(entry)} returned the shape {tuple(values.shape)} on {where}; it must be that of the tokens, "
            f"{tuple(like.shape)}."
        )
    if values.is_complex() or (floating and not values.is_floating_point()):
        wanted = "floating-point numbers" if floating else "0 or 1, or a bool"
        raise UserFunctionError(f"{_says(entry)} returned {values.dtype} on {where}; it must return {wanted}.")
    if values.device != like.device:
        raise UserFunctionError(
            f"{_says(entry)} returned a tensor on {values.device} on {where}; use the tokens' device."
        )


def _wrong(entry: Any, wrong: torch.Tensor, total: int, wanted: str, where: str) -> ValueError:
    first = wrong[0].item()
    return UserFunctionError(
        f"{_says(entry)} gave {first:g} to {len(wrong)} of {total} tokens on {where}; each value must be {wanted}."
    )
