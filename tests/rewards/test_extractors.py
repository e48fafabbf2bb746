"""Answer extractors by name and dotted path, and the votes that their answers give."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenshift.rewards import load_extractor, register_extractor, register_reward
from tokenshift.rewards.answers import extracted_answers
from tokenshift.rewards.extractors import EXTRACTORS, AnswerExtractor
from tokenshift.rewards.registry import REWARDS, reward_extractor


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """Forget after each test what it registers."""
    kept = [(registry, dict(registry._entries), dict(registry._functions)) for registry in (EXTRACTORS, REWARDS)]
    yield
    for registry, entries, functions in kept:
        registry._entries, registry._functions = entries, functions  # type: ignore[assignment]


def last_word(completions: list[str]) -> list[str | None]:
    return [(re.findall(r"\w+", text) or [None])[-1] for text in completions]


def test_math_is_the_extractor_of_the_accuracy_reward() -> None:
    assert load_extractor("math").extract is extracted_answers
    assert [reward_extractor(name) for name in ("accuracy_reward", "format_reward")] == ["math", None]


def test_a_users_answers_vote_by_their_own_equality() -> None:
    register_extractor("last_word")(last_word)
    register_extractor("last_word_any_case", equal=lambda a, b: a.lower() == b.lower())(lambda texts: last_word(texts))
    texts = ["So Yes.", "yes", "", "No", "it is Yes"]
    exact, any_case = load_extractor("last_word"), load_extractor("last_word_any_case")
    answers = exact.answers(texts)
    assert answers == any_case.answers(texts) == ["Yes", "yes", None, "No", "Yes"]
    assert exact.votes(answers, [False] * 5) == [0, 1, None, 2, 0]
    assert any_case.votes(answers, [False] * 5) == [0, 0, None, 1, 0]
    assert exact.votes(answers, [True, True, False, False, False]) == [0, 0, None, 1, 2]


def test_a_reward_names_its_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenshift_test_words.py").write_text(
        "def last(texts):\n    return [t[-1:] or None for t in texts]\n"
    )
    monkeypatch.chdir(tmp_path)

    @register_reward(extractor="tokenshift_test_words.last")
    def right_letter(completions: list[str], **columns: list[str]) -> list[float]:
        return [1.0] * len(completions)

    name = reward_extractor("right_letter")
    assert name == "tokenshift_test_words.last"
    assert load_extractor(name).name == name
    assert load_extractor(name).answers(["ab", ""]) == ["b", None]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1 for _ in texts]", "answer_extractor='tokenshift_test_wrong.take' gave 1; an answer is text"),
        ("return ['a']", "it gave 1 answers for 2 completions"),
        ("return 'ab'", "it gave a str for 2 completions"),
        ("return [text.answer for text in texts]", "fails on the completions .*: AttributeError: 'str' object"),
    ],
)
def test_wrong_replies_are_one_line(body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenshift_test_wrong.py").write_text(f"def take(texts):\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "tokenshift_test_wrong", raising=False)
    with pytest.raises(ValueError, match=said) as error:
        load_extractor("tokenshift_test_wrong.take")
    assert "\n" not in str(error.value)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"answer_extractor='maths' is no answer extractor; did you mean math\?"):
        load_extractor("maths")
    with pytest.raises(ValueError, match="The answer extractor 'math' is registered already"):
        register_extractor("math")(last_word)
    with pytest.raises(ValueError, match="The reward 'format_reward' is registered already"):
        register_reward("format_reward")(last_word)
    with pytest.raises(ValueError, match="gave 3 answers"):
        AnswerExtractor("short", lambda texts: ["a"] * 3).answers(["b"])
