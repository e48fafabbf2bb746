"""Responses of others: as the model reads them, or refused in words that name the file."""

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import processors
from tokenizers.pre_tokenizers import Metaspace, Sequence

from tokenshift.recipes.inputs.trajectory_files import load_trajectories
from tokenshift.recipes.pocket.make_base import make_tokenizer

CHAT = (
    "<s>{% for m in messages %}{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}A:{% if brief %}?{% endif %}{% endif %}"
)


def tokenizer_with(ending: bool = False) -> Any:
    """Pocket's tokenizer, which puts a start token before a text, and an end token behind it."""
    tokenizer = make_tokenizer()
    names = [tokenizer.bos_token, "$A", *([tokenizer.eos_token] if ending else [])]
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in names if token != "$A"]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(" ".join(names), special_tokens=special)
    return tokenizer


def loaded(folder: Path, rows: list[Any], tokenizer: Any = None, **options: Any) -> Any:
    file = folder / "t.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return load_trajectories(str(file), tokenizer or tokenizer_with(), None, **options)[0]


def test_a_text_has_one_start_token_and_its_end_token(tmp_path: Path) -> None:
    """Whether the tokenizer puts the start token there, or the text has it, as a chat template writes it."""
    tokenizer = tokenizer_with()
    plain = tokenizer("1+1=", add_special_tokens=False)["input_ids"]
    answer = tokenizer("2", add_special_tokens=False)["input_ids"]
    rows = [
        {"prompt": prompt, "completion": "2" + tokenizer.eos_token}
        for prompt in ("1+1=", tokenizer.bos_token + "1+1=")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = loaded(tmp_path, rows)
    for trajectory in (first, second):
        assert trajectory.prompt_ids == [tokenizer.bos_token_id, *plain]
        assert trajectory.completion_ids == [*answer, tokenizer.eos_token_id]
    assert (first.problem_id, first.sample_id, second.problem_id, second.sample_id) == (0, 0, 0, 1)


def test_texts_without_an_end_token_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "1+1=", "completion": text} for text in ("2", "2</s>", "11")]
    with pytest.warns(UserWarning, match=r"t\.jsonl': 2 of 3 completions do not end with an end token.*write '</s>'"):
        loaded(tmp_path, rows)


def test_a_text_goes_on_after_the_prompt_as_one_text(tmp_path: Path) -> None:
    """Tokenizers that put a space before a text must not put one between the prompt and the completion."""
    tokenizer = make_tokenizer()
    whole = tokenizer._tokenizer.pre_tokenizer
    tokenizer._tokenizer.pre_tokenizer = Sequence([Metaspace(" ", prepend_scheme="first", split=False), whole])
    space = tokenizer.convert_tokens_to_ids(" ")
    (trajectory,) = loaded(tmp_path, [{"prompt": "1+1=", "completion": "2" + tokenizer.eos_token}], tokenizer)
    assert trajectory.prompt_ids[0] == space
    assert trajectory.completion_ids == [tokenizer.convert_tokens_to_ids("2"), tokenizer.eos_token_id]


def test_conversations_are_written_by_the_chat_template(tmp_path: Path) -> None:
    tokenizer = tokenizer_with()
    tokenizer.chat_template = CHAT
    row = {"prompt": [{"role": "user", "content": "1+1"}], "completion": [{"role": "assistant", "content": "2"}]}
    with pytest.warns(UserWarning, match="1 of 1 completions"):
        (trajectory,) = loaded(tmp_path, [row], tokenizer, chat_template_kwargs={"brief": True})
    assert tokenizer.decode(trajectory.prompt_ids) == "<s>1+1;A:?"
    assert trajectory.prompt_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(trajectory.completion_ids) == "2"
    with pytest.raises(
        ValueError, match=r"t\.jsonl': the prompt of row 0 is a conversation, but the tokenizer has no chat"
    ):
        loaded(tmp_path, [row])


def test_lists_and_names_of_problems(tmp_path: Path) -> None:
    ids = {"prompt_ids": [5], "completion_ids": [6]}
    file = tmp_path / "t.json"
    file.write_text(json.dumps([{**ids, "problem_id": "b"}, {**ids, "problem_id": "a"}, {**ids, "problem_id": "b"}]))
    rows = load_trajectories(str(file), make_tokenizer(), None)[0]
    assert [(row.problem_id, row.sample_id) for row in rows] == [(0, 0), (1, 0), (0, 1)]
    table = pa.Table.from_pylist([{**ids, "problem_id": 7}, {**ids, "problem_id": 3}])
    pq.write_table(table, tmp_path / "t.parquet")
    rows = load_trajectories(str(tmp_path / "t.parquet"), make_tokenizer(), None)[0]
    assert [row.problem_id for row in rows] == [7, 3]


IDS = {"prompt_ids": [5], "completion_ids": [6, 2]}


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{**IDS, "completion_ids": [6, 60]}], {"vocabulary": 50}, r"row 0 has token id 60 .*the models have 50 ids"),
        ([{**IDS, "prompt_ids": [0, 0, 5]}], {}, r"row 0 has padding \(id 0\) before its prompt; cut it off"),
        ([{**IDS, "completion_ids": [6, 2, 0, 0]}], {}, r"row 0 has padding \(id 0\) after its end token"),
        ([{**IDS, "completion_ids": [6, 2, 2]}], {}, r"row 0 has padding \(id 2\) after its end token"),
        ([{**IDS, "completion_ids": [6, 0]}], {}, r"row 0 has padding \(id 0\) after its completion"),
        ([{**IDS, "problem_id": 1}, IDS], {}, "row 0 has an integer as problem_id, but row 1 no problem_id"),
        ([{**IDS, "problem_id": 1}, {**IDS, "problem_id": "1"}], {}, "but row 1 a name as problem_id"),
        (
            [{**IDS, "problem_id": 1}, {**IDS, "problem_id": 1, "prompt_ids": [7]}],
            {},
            "rows 0 and 1 have problem_id=1, but other prompts",
        ),
        (
            [{**IDS, "solution": "1"}, {**IDS, "solution": "2"}],
            {},
            "rows 0 and 1 have one prompt, but other solutions",
        ),
        ([IDS], {"context": 2}, "row 0 has 3 tokens, but the model reads 2"),
        ([IDS], {"context": 2, "context_reason": " (why)"}, r"but the model reads 2 \(why\)\."),
        (
            [{"prompt": "1+1=", "completion": text} for text in ("2</s>", "3</s>5")],
            {},
            "the completion of row 1 goes on behind its end token, by '5'; cut it off there, or give prompt_ids and",
        ),
        ([{"prompt": "1+1=", "completion": "3</s>5</s>"}], {}, "row 0 goes on behind its end token, by '5'"),
    ],
)
def test_what_is_not_clear_is_refused(rows: list[Any], options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^trajectories='.*t\.jsonl'.*" + words):
        loaded(tmp_path, rows, **options)


@pytest.mark.parametrize(
    ("row", "kind"), [(IDS, "token ids"), ({"prompt": "1+1=", "completion": "2</s>"}, "text")], ids=["ids", "text"]
)
def test_a_chat_template_without_conversations_is_refused(row: Any, kind: str, tmp_path: Path) -> None:
    words = rf"^chat_template_kwargs=\{{'brief': True\}} has no effect: .*t\.jsonl' are {kind}, .*; leave it out\.$"
    with pytest.raises(ValueError, match=words):
        loaded(tmp_path, [row], chat_template_kwargs={"brief": True})


def test_a_word_that_ends_generation_may_be_inside_a_text(tmp_path: Path) -> None:
    """Ids that have a model stop, such as that of a line's end, are words of a text like others."""
    tokenizer = tokenizer_with()
    (five,) = tokenizer("5", add_special_tokens=False)["input_ids"]
    (trajectory,) = loaded(tmp_path, [{"prompt": "1+1=", "completion": "354</s>"}], ends=[five])
    assert tokenizer.decode(trajectory.completion_ids) == "354</s>"


def test_a_prompt_that_the_tokenizer_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.jsonl': the tokenizer ends the prompt of row 0 with its end token"):
        loaded(tmp_path, [{"prompt": "1+1=", "completion": "2"}], tokenizer_with(ending=True))
