"""Numbers of given texts, without vLLM: which rows of a step they are of."""

import sys
from collections.abc import Iterator, Mapping
from types import ModuleType

import pytest
import torch

from tokenshift.analysis.vllm_engine import prefill_scoring, row_steps
from tokenshift.analysis.vllm_engine.prefill_scoring import PrefillScorer, ScoredText

FUNCTION = "functions_of_the_test:row_and_token"


def row_and_token(
    logits: Mapping[str, torch.Tensor], followed: torch.Tensor, settings: str
) -> dict[str, torch.Tensor]:
    assert settings == "{}"
    return {"row": logits["base"][:, 0], "followed": followed, "calls": followed * 0 + len(followed)}


@pytest.fixture(autouse=True)
def _function(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("functions_of_the_test")
    module.row_and_token = row_and_token  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "functions_of_the_test", module)
    row_steps.step_function.cache_clear()
    yield
    row_steps.step_function.cache_clear()


def read(scorer: PrefillScorer, *texts: list[int], padding: int = 0, first: int = 0) -> None:
    """A step that reads texts one after another; the logits at a row are the row's number."""
    ids = [token for text in texts for token in text] + [99] * padding
    positions = [first + index for text in texts for index in range(len(text))] + [0] * padding
    rows = torch.arange(len(ids)).float().unsqueeze(-1)
    scorer(torch.tensor(ids), torch.tensor(positions), lambda chosen: {"base": rows[chosen], "rl": rows[chosen]})


def begun(*texts: ScoredText) -> PrefillScorer:
    scorer = PrefillScorer()
    scorer.begin(FUNCTION, "{}", texts, 1)
    return scorer


def test_rows_are_those_before_the_tokens_that_followed() -> None:
    scorer = begun(ScoredText([5, 6, 7, 8], [8, 9]), ScoredText([5, 6], [7]), ScoredText([5, 6, 7, 8], [8, 1]))
    read(scorer, [3, 3], [5, 6, 7, 8], [5, 6], padding=2)
    numbers = scorer.drain()
    assert {index: (of_text["row"], of_text["followed"]) for index, of_text in numbers.items()} == {
        0: ([4, 5], [8, 9]),
        1: ([7], [7]),
        2: ([4, 5], [8, 1]),  # the same text before another last token
    }
    assert not scorer.active


def test_a_short_text_is_read_before_a_long_one() -> None:
    scorer = begun(ScoredText([5, 6], [7]), ScoredText([5, 6, 7, 8], [9]))
    read(scorer, [5, 6], [5, 6, 7, 8])
    assert {index: of_text["row"] for index, of_text in scorer.drain().items()} == {0: [1], 1: [5]}


def test_a_text_that_is_read_in_parts_is_missing() -> None:
    scorer = begun(ScoredText([5, 6, 7], [7, 8]))
    read(scorer, [5, 6])
    read(scorer, [7], first=2)
    assert scorer.drain() == {}


def test_what_stands_behind_a_text_is_left_alone() -> None:
    scorer = begun(ScoredText([5, 6], [7]))
    read(scorer, [5, 6, 99])  # padding that goes on counting
    assert scorer.drain()[0]["row"] == [1]
    assert not scorer.active
    read(scorer, [5, 6])  # nothing is wanted any more
    assert scorer.drain() == {}


def test_rows_of_a_call_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill_scoring, "rows_of_a_call", lambda vocabulary, device: 2)
    scorer = begun(ScoredText([4, 5, 6, 7, 8], [5, 6, 7, 8, 9]))
    read(scorer, [4, 5, 6, 7, 8])
    assert scorer.drain()[0]["calls"] == [2, 2, 2, 2, 1]
