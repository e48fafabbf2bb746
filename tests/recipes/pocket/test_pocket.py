"""The embedded example: its problems, its habits, and the base model that ships."""

import random
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tokenshift.recipes.pocket.make_base import make_model, make_tokenizer, train_base
from tokenshift.recipes.pocket.problems import KINDS, SPLITS, answer, pocket_dataset, pool, prompt, question, split_of
from tokenshift.recipes.pocket.solutions import (
    BASE_HABITS,
    FLAWLESS,
    Habits,
    write_solution,
    write_taught_solution,
)
from tokenshift.rewards import accuracy_reward
from tokenshift.rewards.format import boxed_answers


def test_splits_share_no_question_and_leave_none_out() -> None:
    pools = {split: {question(kind, n) for kind in KINDS for n in pool(kind, split)} for split in SPLITS}
    assert not pools["train"] & pools["eval"]
    assert not pools["train"] & pools["analysis"]
    assert not pools["eval"] & pools["analysis"]
    assert sum(map(len, pools.values())) == 90 * 90 + 90 * 91 // 2 + 7 * 7 * 90
    assert all(split_of(text) == split for split, texts in pools.items() for text in texts)


@pytest.mark.parametrize("split", SPLITS)
def test_dataset_is_seeded_distinct_and_right(split: str) -> None:
    data = pocket_dataset(split, 300, seed=1)
    assert data.to_list() == pocket_dataset(split, 300, seed=1).to_list()
    assert data.to_list() != pocket_dataset(split, 300, seed=2).to_list()
    assert len(set(data["prompt"])) == 300
    assert {kind: list(data["kind"]).count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 100)
    for row in data:
        assert eval(row["problem_id"]) == int(row["solution"])
        assert split_of(row["problem_id"]) == split
        assert row["prompt"] == f"Q: {row['problem_id']}=?\nA: "


@pytest.mark.parametrize(
    ("split", "size", "words"), [("test", 3, "not known"), ("eval", 0, "holds 1 to"), ("eval", 9999, "holds 1 to")]
)
def test_dataset_refuses(split: str, size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pocket_dataset(split, size)


@given(seed=st.integers(0, 10**6))
def test_flawless_solutions_are_right_and_every_solution_can_be_read(seed: int) -> None:
    rng, tokenizer = random.Random(seed), make_tokenizer()
    kind = rng.choice(KINDS)
    numbers = rng.choice(pool(kind, rng.choice(SPLITS)))
    assert boxed_answers(write_solution(kind, numbers, rng, FLAWLESS)) == [str(answer(kind, numbers))]
    text = prompt(question(kind, numbers)) + write_solution(kind, numbers, rng)
    assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert 30 <= len(write_solution(kind, numbers, rng)) + 1 <= 120


@pytest.mark.parametrize("kind", KINDS)
def test_taught_solutions_are_right_and_can_be_read_in_none_of_the_bases_phrases(kind: str, pocket_base) -> None:
    rng, tokenizer = random.Random(kind), AutoTokenizer.from_pretrained(pocket_base)
    context = AutoConfig.from_pretrained(pocket_base).max_position_embeddings
    chosen = rng.sample([numbers for split in SPLITS for numbers in pool(kind, split)], 400)
    taught = [write_taught_solution(kind, numbers, rng) for numbers in chosen]
    gold = [str(answer(kind, numbers)) for numbers in chosen]
    assert accuracy_reward(completions=taught, solution=gold) == [1.0] * len(chosen)
    own = [write_solution(kind, numbers, rng, FLAWLESS) for numbers in chosen]
    for numbers, text, its_own in zip(chosen, taught, own, strict=True):
        whole = prompt(question(kind, numbers)) + text
        ids = tokenizer(whole).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == whole
        assert len(ids) + 1 <= context
        assert re.findall(r"[\d+*=-]*\d", text) == re.findall(r"[\d+*=-]*\d", its_own)
    words = {word for text in taught for word in re.findall("[A-Za-z]+", text)}
    assert words & {word for text in own for word in re.findall("[A-Za-z]+", text)} == {"boxed"}
    assert abs(sum(map(len, taught)) / sum(map(len, own)) - 1) < 0.2
    assert len({re.sub(r"\d+", "", text) for text in taught}) == 4
    again = [write_taught_solution(kind, chosen[0], random.Random(5)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    ("habits", "low", "high"),
    [
        (Habits(glance=1.0, glance_error=1.0, slip=0.0, rounding=0.0), 0.0, 0.01),  # 0 cannot be missed downwards
        (Habits(glance=0.0, glance_error=0.0, slip=1.0, rounding=0.0), 0.3, 0.7),  # right where nothing is carried
        (Habits(glance=0.0, glance_error=0.0, slip=0.0, rounding=1.0), 0.02, 0.2),
        (BASE_HABITS, 0.50, 0.60),
    ],
)
def test_each_habit_costs_answers(habits: Habits, low: float, high: float) -> None:
    rng = random.Random(0)
    right = 0
    for _ in range(2000):
        kind = rng.choice(KINDS)
        numbers = rng.choice(pool(kind, "train"))
        right += boxed_answers(write_solution(kind, numbers, rng, habits)) == [str(answer(kind, numbers))]
    assert low <= right / 2000 <= high


def test_shipped_base_loads_saves_and_loads(pocket_base, tmp_path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(pocket_base), AutoTokenizer.from_pretrained(pocket_base)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = "Q: 47+38=?\nA: Step by step: ones 7+8=15, carry 1; \\boxed{85}."
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids.shape[1] == len(text)
    assert torch.equal(ids, tokenizer_again(text, return_tensors="pt").input_ids)
    assert tokenizer_again.decode(ids[0]) == text
    assert tokenizer_again.padding_side == "left"
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert sum(file.stat().st_size for file in pocket_base.iterdir()) <= 4 * 2**20


@pytest.mark.slow
def test_shipped_base_answers_about_half_and_in_30_to_120_tokens(pocket_base) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(pocket_base), AutoTokenizer.from_pretrained(pocket_base)
    data = pocket_dataset("eval", 510)
    torch.manual_seed(0)
    right, lengths = [], []
    for start in range(0, 510, 170):
        rows = data.select(range(start, start + 170))
        inputs = tokenizer(list(rows["prompt"]), return_tensors="pt", padding=True)
        ids = model.generate(**inputs, max_new_tokens=128, do_sample=True, top_k=0)[:, inputs.input_ids.shape[1] :]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        right += [boxed_answers(text) == [gold] for text, gold in zip(texts, rows["solution"], strict=True)]
        lengths += (ids != tokenizer.pad_token_id).sum(dim=1).tolist()
    assert 0.40 <= sum(right) / len(right) <= 0.60
    assert min(lengths) >= 30
    assert max(lengths) <= 120


def test_the_script_that_makes_it_is_seeded() -> None:
    (first, loss), (second, _) = (train_base(steps=2, seed=4, batch_size=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert loss > 0
    untrained = make_model(len(make_tokenizer()))
    assert untrained.num_parameters() == first.num_parameters() < 1e6
