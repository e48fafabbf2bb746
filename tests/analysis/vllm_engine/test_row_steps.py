"""Step functions get the right rows, positions and counts, and their records are kept; without vLLM."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from tokenshift.analysis.vllm_engine import row_steps
from tokenshift.analysis.vllm_engine.row_steps import RowRequest, RowSteps, StepResult, only_token

VOCABULARY = 7
STEP = "steps_of_the_test:highest"


def highest(
    logits: Mapping[str, torch.Tensor],
    rows: Sequence[tuple[int, int]],
    positions: Sequence[int],
    replaced: Sequence[int],
    settings: str,
) -> StepResult:
    """Base's most probable token, or RL's while fewer than two tokens were replaced."""
    base, rl = (logits[name].argmax(-1) for name in ("base", "rl"))
    free = torch.tensor([count < 2 for count in replaced])
    tokens = torch.where(free, rl, base)
    problems = torch.tensor([row[0] for row in rows])
    record = {"problem": problems, "at": torch.tensor(positions), "calls": base * 0 + len(rows)}
    return StepResult(tokens, record, tokens != base)


@pytest.fixture(autouse=True)
def _step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("steps_of_the_test")
    module.highest = highest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "steps_of_the_test", module)
    row_steps.step_function.cache_clear()
    yield
    row_steps.step_function.cache_clear()


def one_hot(tokens: Sequence[int], width: int = VOCABULARY) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(tokens), width).float()


def policies(base: Sequence[int], rl: Sequence[int]) -> dict[str, torch.Tensor]:
    return {"base": one_hot(base), "rl": one_hot(rl)}


def request(key: int, **fields: Any) -> RowRequest:
    values: dict[str, Any] = {"row": (10 + key, 0), "offset": 0, "step": STEP, "settings": ""}
    return RowRequest(key, **(values | fields))


def test_a_request_goes_through_the_arguments_of_vllm() -> None:
    given = request(3, offset=5, settings="{}", replaced_before=2)
    assert RowRequest.from_arguments(given.argument) == given
    assert RowRequest.from_arguments(None) is RowRequest.from_arguments({"other": 1}) is None


def test_rows_without_a_request_or_at_the_start_of_their_text_are_left_alone() -> None:
    steps = RowSteps()
    tokens = steps(policies([1, 2, 3], [4, 5, 6]), [request(0), None, request(2)], [0, 0, None])
    assert tokens.tolist() == [4, -1, -1]
    assert steps.drain()["keys"] == [0]


def test_replacements_are_counted_by_request_wherever_its_row_is() -> None:
    steps = RowSteps()
    first, second = request(0), request(1, offset=4, replaced_before=1)
    assert steps(policies([1, 1], [2, 2]), [first, second], [0, 4]).tolist() == [2, 2]
    assert steps(policies([1, 1], [2, 2]), [second, first], [5, 1]).tolist() == [1, 2]
    assert steps(policies([1], [2]), [first], [2]).tolist() == [1]


def test_a_position_that_is_decided_again_counts_once() -> None:
    steps = RowSteps()
    for position in (0, 0, 1):  # begun anew, as after a preemption
        assert steps(policies([1], [2]), [request(0)], [position]).tolist() == [2]
    assert steps(policies([1], [2]), [request(0)], [2]).tolist() == [1]


def test_records_are_drained_in_order_and_once() -> None:
    steps = RowSteps()
    for position in range(2):
        steps(policies([1, 1], [1, 1]), [request(4), request(5)], [position, position])
    drained = steps.drain()
    assert drained["keys"] == [4, 5, 4, 5]
    assert drained["positions"] == drained["at"] == [0, 0, 1, 1]
    assert drained["problem"] == [14, 15, 14, 15]
    assert steps.drain() == {"keys": [], "positions": []}


def test_the_memory_of_a_call_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_steps, "CPU_MEMORY", 2 * 4 * row_steps.COPIES * VOCABULARY)
    steps = RowSteps()
    tokens = steps(policies([1] * 5, [2] * 5), [request(key) for key in range(5)], [0] * 5)
    assert tokens.tolist() == [2] * 5
    assert steps.drain()["calls"] == [2, 2, 2, 2, 1]
    assert row_steps.rows_of_a_call(10**9, torch.device("cpu")) == 1


def test_the_chosen_token_is_the_only_one() -> None:
    logits = torch.randn(3, VOCABULARY)
    before = logits.clone()
    forced = only_token(logits, torch.tensor([2, -1, 0]))
    assert forced.argmax(-1)[[0, 2]].tolist() == [2, 0]
    assert forced.isfinite().sum(-1).tolist() == [1, VOCABULARY, 1]
    assert torch.equal(forced[1], before[1])
    assert only_token(logits, torch.tensor([1, 2, 3])).argmax(-1).tolist() == [1, 2, 3]
