"""Weightings and divergences at the sampled token by name: the shipped ones, and a user's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch

from tokenshift.analysis.registry import Registry, close_match
from tokenshift.trainer.weighting.kinds import KINDS, Kind
from tokenshift.trainer.weighting.options import Option, location, read_options
from tokenshift.trainer.weighting.tokens import ALWAYS, REFERENCE_STATISTICS, TOKEN_STATISTICS

_Function = TypeVar("_Function", bound=Callable[..., torch.Tensor])
KindName = Literal["multiplier", "mask", "additive"]


@dataclass(frozen=True)
class Divergence:
    """A per-token divergence, D in nats.

    Attributes:
        name: what the config, tables and cards call it.
        formula: one line of text.
        function: `(logps, old_logps) -> D`, of the sampled tokens, `(N,)` each; None for a divergence between whole
            next-token distributions.
        signed: whether it may be negative.
        statistic: of whole distributions, the output of `token_statistics`.
        truncated: the same for distributions truncated to a top-p; None where that has no meaning.
    """

    name: str
    formula: str
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    signed: bool = False
    statistic: str | None = None
    truncated: str | None = None


@dataclass(frozen=True)
class Weighting:
    """A way to weight the advantages token by token; the arguments of `register_weighting` say more.

    Attributes:
        name: what the config, tables, trackers and cards call it.
        function: `(tokens, **options) -> (B, T)`; None leaves the advantages as they are.
        formula: one line of text, with the options' names.
        kind: `"multiplier"`, `"mask"` or `"additive"`.
        needs: what it asks for.
        varies_at_first_update: whether its values differ before the policy has moved.
        options: its keyword-only arguments.
        fields: options that a field of the config sets, and which.
        check: what is wrong with options and divergence together, or None.
        variant: its name with these options and this divergence, where that says more than `name`.
        shuffled: whether its values are always shuffled over the batch's valid tokens, as `weight_control="shuffle"`
            does it.
    """

    name: str
    function: Callable[..., torch.Tensor] | None
    formula: str
    kind: str = "multiplier"
    needs: tuple[str, ...] = ()
    varies_at_first_update: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any], Divergence], str | None] | None = None
    variant: Callable[[Mapping[str, Any], Divergence], str] | None = None
    shuffled: bool = False

    @property
    def behaviour(self) -> Kind:
        """The treatment of the values of its kind."""
        return KINDS[self.kind]

    @property
    def reference_statistics(self) -> dict[str, str]:
        """Statistics that it needs of the reference: name -> output of `token_statistics`."""
        return {name: output for name, output in REFERENCE_STATISTICS.items() if name in self.needs}


WEIGHTINGS: Registry[Weighting] = Registry("advantage_weighting", "weighting")
DIVERGENCES: Registry[Divergence] = Registry("divergence", "divergence")


def register_weighting(
    name: str | None = None,
    *,
    formula: str,
    needs: tuple[str, ...] = (),
    kind: KindName = "multiplier",
    varies_at_first_update: bool = False,
    fields: Mapping[str, str] | None = None,
    check: Callable[[Mapping[str, Any], Divergence], str | None] | None = None,
    variant: Callable[[Mapping[str, Any], Divergence], str] | None = None,
    shuffled: bool = False,
) -> Callable[[_Function], _Function]:
    """Register a function as a weighting of advantages. How to add one, in `my_weights.py`:

        @register_weighting(formula="w = 1 + c * tanh(JS / t)", needs=("js",))
        def saturated(tokens, *, c: float = 0.5, t: float = 0.05):
            return 1 + c * torch.tanh(tokens.js / t)

    and on the command line `--advantage_weighting my_weights.saturated --weighting_options '{"c": 1.0}'`.

    The function takes one `Tokens` and returns a `(B, T)` tensor; it runs without gradients. Its keyword-only
    arguments are its options. What it returns outside `tokens.mask` is ignored.

    Args:
        name: its name; the function's own when None.
        formula: one line for the plan, the model card and `summary.json`; the options' values are added to it.
        needs: the statistics it reads, names of `TOKEN_STATISTICS`; `js`, `forward_kl`, `reverse_kl`,
            `entropy_reference` and `logp_reference` cost a forward pass of the reference per generation. Name
            `divergence` too where the formula has D, so that cards say which divergence that is.
        kind: `"multiplier"`: the advantage is multiplied by it, finite numbers of at least 0. `"mask"`: 0 or 1, or a
            bool; the advantage becomes 0 where it is 0. `"additive"`: finite numbers, added to the advantage.
        varies_at_first_update: whether the values differ from token to token while the policy is still the one that
            produced the rollouts. Otherwise a config with one update per generation is refused.
        fields: options that a field of the config sets, and which: for the shipped weightings.
        check: what is wrong with the options' values and the divergence together, as one line of text, or None.
        variant: a short name for tables that depends on the options and the divergence.
        shuffled: whether its values are put on random valid tokens of the batch, those of all ranks, by the run's seed
            and the micro-step, as `weight_control="shuffle"` does it.

    Raises:
        ValueError: if the function takes other arguments, `needs` or `kind` has an unknown name, the formula is empty
            or has several lines, or the name is taken.
    """

    def register(function: _Function) -> _Function:
        where = location(function)
        options = read_options(function, ("tokens",), "weighting")
        _check_formula(formula, where)
        if isinstance(needs, str):
            raise ValueError(f"{where}: needs={needs!r} must be a tuple of names, as in needs=({needs!r},).")
        for need in needs:
            known = (*ALWAYS, *TOKEN_STATISTICS)
            if need not in known:
                raise ValueError(
                    f"{where}: needs has {need!r}{close_match(str(need), known) or '.'} Known are {', '.join(known)}."
                )
        if kind not in KINDS:
            raise ValueError(f"{where}: kind={kind!r} is not known; choose one of {', '.join(KINDS)}.")
        own_name = name or function.__name__
        entry = Weighting(
            name=own_name,
            function=function,
            formula=formula,
            kind=kind,
            needs=tuple(needs),
            varies_at_first_update=varies_at_first_update,
            options=options,
            fields=dict(fields or {}),
            check=check,
            variant=variant,
            shuffled=shuffled,
        )
        WEIGHTINGS.add(own_name, function, entry)
        return function

    return register


def register_divergence(
    name: str | None = None, *, formula: str, signed: bool = False
) -> Callable[[_Function], _Function]:
    """Register a function as a divergence at the sampled token. How to add one, in `my_weights.py`:

        @register_divergence(formula="D = |exp(d) - 1|, d = log pi_theta - log pi_old")
        def ratio_distance(logps, old_logps):
            return torch.expm1(logps - old_logps).abs()

    and on the command line `--divergence my_weights.ratio_distance`.

    The function takes the sampled tokens' log-probabilities under the policy and under the policy that produced the
    rollouts, `(N,)` each, and returns D `(N,)`, in nats.

    Args:
        name: its name; the function's own when None.
        formula: one line for the plan, the model card and `summary.json`.
        signed: whether D may be negative.

    Raises:
        ValueError: if the function takes other arguments, the formula is empty or has several lines, or the name is
            taken.
    """

    def register(function: _Function) -> _Function:
        read_options(function, ("logps", "old_logps"), "divergence")
        _check_formula(formula, location(function))
        own_name = name or function.__name__
        DIVERGENCES.add(own_name, function, Divergence(own_name, formula, function, signed))
        return function

    return register


def _check_formula(formula: str, where: str) -> None:
    if not isinstance(formula, str) or not formula.strip() or "\n" in formula:
        raise ValueError(f"{where}: formula={formula!r} must be one line of text.")
