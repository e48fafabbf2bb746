"""Criteria by name, by dotted path and with options, and how a user's meets a budget."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenshift.analysis import register_criterion
from tokenshift.analysis.cross_sampling import criterion_registry
from tokenshift.analysis.cross_sampling.criteria import SHIPPED_CRITERIA
from tokenshift.analysis.cross_sampling.criterion_registry import (
    CRITERIA,
    Positions,
    check_threshold,
    criterion_file_name,
    named_criterion,
    pair_statistics,
    rehearse,
)
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention, decide
from tokenshift.analysis.cross_sampling.pilot import next_threshold, threshold_for
from tokenshift.analysis.cross_sampling.sweep import SweptPolicy
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget after a test the criteria that it registers."""
    entries, functions = dict(CRITERIA._entries), dict(CRITERIA._functions)
    yield
    CRITERIA._entries, CRITERIA._functions = entries, functions


def distributions(count: int = 6, vocabulary: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(count, vocabulary, generator=generator).log_softmax(-1) for _ in range(2))
    return p, q


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_a_criterion_sees_both_draws_and_decides_between_them(registered: None, gamma: float) -> None:
    seen: list[Positions] = []

    @register_criterion("recorded")
    def recorded(positions: Positions) -> torch.Tensor:
        seen.append(positions)
        return positions.drawn != positions.intervention_drawn  # a mask is a score too

    p, q = distributions()
    rows, places, sampling = [(n, 0) for n in range(6)], list(range(6)), Sampling(1.0, 1.0, 8, seed=5)
    decisions = decide(p, q, rows, places, sampling, Intervention("recorded", 0.5, gamma=gamma))
    target = ((1 + gamma) * q - gamma * p).log_softmax(-1)
    primary, other = (coupled_draw(logp, rows, places, **sampling.draw) for logp in (p, target))
    assert torch.equal(seen[0].drawn, primary)
    assert torch.equal(seen[0].intervention_drawn, other)
    assert decisions.switched == (primary != other).tolist()
    assert any(decisions.switched)
    assert (decisions.primary_ids, decisions.intervention_ids) == (primary.tolist(), other.tolist())
    expected = pair_statistics(p, q, ("js",))["js"]
    for switched, value, js in zip(decisions.switched, decisions.js, expected.tolist(), strict=True):
        assert value == pytest.approx(js) if switched else math.isnan(value)


def test_needed_statistics_take_one_pass(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[frozenset[str]] = []
    row_sums = criterion_registry.row_sums

    def counted(*logps: torch.Tensor, **settings: Any) -> Any:
        passes.append(logps[2])  # type: ignore[arg-type]
        return row_sums(*logps, **settings)

    monkeypatch.setattr(criterion_registry, "row_sums", counted)

    @register_criterion(needs=("js", "entropy_primary"))
    def sure(positions: Positions) -> torch.Tensor:
        return positions.js / (1 + positions.entropy_primary) + 0 * positions.forward_kl

    p, q = distributions()
    positions = Positions(p, q, p.argmax(-1), [(0, 0)] * 6, [0] * 6, 0, q.argmax(-1))
    scores = named_criterion("sure")(positions)
    assert passes == [frozenset({"js", "entropy_base"}), frozenset({"forward_kl"})]
    js, entropy = (named_criterion(name)(positions) for name in ("js", "entropy_primary"))
    assert len(passes) == 2
    assert torch.allclose(scores, js / (1 + entropy))


def test_options_stand_in_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenshift_test_options.py").write_text(
        "def scaled(positions, *, scale=1.0, shift=0.0):\n    return scale * positions.js + shift\n"
    )
    monkeypatch.chdir(tmp_path)
    p, q = distributions()
    positions = Positions(p, q, p.argmax(-1), [(0, 0)] * 6, [0] * 6, 0, q.argmax(-1))
    plain = Intervention("tokenshift_test_options.scaled", 0.1)
    scaled = Intervention("tokenshift_test_options.scaled(scale=3.0, shift=1)", 0.1)
    assert torch.allclose(scaled.entry(positions), 3 * plain.entry(positions) + 1)
    assert torch.equal(plain.entry(positions), named_criterion("js")(positions))
    assert named_criterion("tokenshift_test_options.scaled( scale = 3. )").name == (
        "tokenshift_test_options.scaled(scale=3.0)"
    )
    assert plain != scaled
    assert hash(plain) == hash(Intervention("tokenshift_test_options.scaled", 0.1))


def test_names_of_files_are_safe_and_differ() -> None:
    names = ["js", "my.margin", "my.margin(c=1)", "my.margin(c=10)", "a/b", "a b"]
    files = [SweptPolicy("forward", name, 0.1).name for name in names]
    assert files[0] == "forward-js-epsilon0.10000000000000001-seed0"
    assert criterion_file_name("my.margin") == "my.margin"
    assert len(set(files)) == len(files)
    assert not any(set(name) & set("/()= ") for name in files)


def test_a_users_at_budget_replaces_the_search(registered: None) -> None:
    @register_criterion(range=(0, 10), at_budget=lambda share: 10 * (1 - share))
    def known(positions: Positions) -> torch.Tensor:
        return 10 * positions.js

    @register_criterion(range=(0, 1), at_budget=lambda share, responses: 2.0 * len(responses))
    def outside(positions: Positions) -> torch.Tensor:
        return positions.js

    assert not named_criterion("known").budget_reads_responses
    assert named_criterion("outside").budget_reads_responses
    assert threshold_for("known", 0.25, []) == 7.5
    assert next_threshold("known", 0.25, [[]], [(7.5, 0.4)]) is None
    with pytest.raises(ValueError, match=r"at_budget gave 2.0 for a share of 0.1, which is no number in \[0, 1\]"):
        threshold_for("outside", 0.1, [CrossResponse(0, 0, [1], scores=[0.1])])
    with pytest.raises(ValueError, match=r"epsilon=11 must lie in \[0, 10\] for the criterion known"):
        check_threshold("known", 11)


def test_mistakes_when_registering(registered: None) -> None:
    def mine(positions: Positions) -> torch.Tensor:
        return positions.js

    with pytest.raises(ValueError, match=r"The criterion 'js' is registered already, by tokenshift.*criteria.js"):
        register_criterion("js")(mine)
    with pytest.raises(ValueError, match="needs names 'jss'; a criterion may need js, forward_kl"):
        register_criterion(needs=("jss",))
    with pytest.raises(ValueError, match=r"range=\(1, 0\) of a criterion must be"):
        register_criterion(range=(1, 0))
    with pytest.raises(ValueError, match="called with brackets"):
        register_criterion(mine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has a bracket"):
        register_criterion("mine(c=1)")
    with pytest.raises(ValueError, match=r"criterion='forward' is no criterion; did you mean forward_kl\?"):
        named_criterion("forward")
    with pytest.raises(ValueError, match=r"missing a required argument|no signature"):
        named_criterion("operator.add")
    assert "mine" not in CRITERIA


def test_shipped_criteria_pass_their_own_rehearsal() -> None:
    assert {"js", "random", "position", "all", "none"} <= set(SHIPPED_CRITERIA)
    for name in SHIPPED_CRITERIA:
        rehearse(named_criterion(name), 100)
        assert named_criterion(name).words
