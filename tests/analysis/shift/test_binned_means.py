"""Sums of binned terms against a loop, and every measure's terms in bins that it names."""

import numpy as np
import pytest
from helpers.random_table import random_rows

from tokenshift.analysis.shift.binned_means import (
    MEASURES,
    BinnedTerms,
    binned_sums,
    distance_terms,
    filled_means,
    means_of_sums,
    response_terms,
)


@pytest.mark.parametrize("terms", [0, 1, 500])
def test_sums_are_those_of_a_loop(terms: int) -> None:
    rng = np.random.default_rng(terms)
    bins = rng.integers(-2, 5, terms)  # of three bins; the others are in none
    values, rows, groups = rng.normal(size=terms), rng.integers(0, 30, terms), rng.integers(0, 4, 30)
    sums, counts = binned_sums(BinnedTerms(["a", "b", "c"], values, bins, rows), groups, 4)
    expected_sums, expected_counts = np.zeros((4, 3)), np.zeros((4, 3))
    for value, bin_, row in zip(values, bins, rows, strict=True):
        if 0 <= bin_ < 3:
            expected_sums[groups[row], bin_] += value
            expected_counts[groups[row], bin_] += 1
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-12)
    np.testing.assert_array_equal(counts, expected_counts)
    together = binned_sums(BinnedTerms(["a", "b", "c"], values, bins, rows))
    np.testing.assert_allclose(together[0], sums.sum(axis=0, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(together[1], counts.sum(axis=0, keepdims=True))


def test_a_term_without_a_row_is_of_the_row_at_its_index() -> None:
    sums, counts = binned_sums(BinnedTerms(["a"], np.array([1.0, 2.0, 4.0]), np.zeros(3, int)), np.array([1, 0, 1]), 3)
    assert sums[:, 0].tolist() == [2, 5, 0]
    assert counts[:, 0].tolist() == [1, 2, 0]


def test_a_mean_of_nothing_is_no_number() -> None:
    sums, counts = np.array([0.0, 3.0]), np.array([0.0, 2.0])
    np.testing.assert_array_equal(means_of_sums(sums, counts), [np.nan, 1.5])
    assert filled_means(["a", "b"], sums, counts) == {"b": 1.5}


@pytest.mark.parametrize("lengths", [[1], [3, 1, 70], [25] * 4])
def test_terms_name_their_bins_and_rows(lengths: list[int]) -> None:
    table = random_rows(5, lengths)
    for measure in MEASURES:
        for name, terms in measure(table, "js").items():
            assert len(terms.values) == len(terms.bins), name
            assert len(set(terms.labels)) == len(terms.labels), name
            assert terms.bins.max(initial=0) < len(terms.labels), name
            if terms.rows is None:
                assert len(terms.values) == table.num_rows, name
            else:
                assert terms.rows.max(initial=0) < table.num_rows, name
            assert np.isfinite(np.asarray(terms.values, float)).all(), name  # a missing verdict is no term


def test_distances_by_hand() -> None:
    table = random_rows(6, [3, 9])
    table = table.set_column(table.column_names.index("token"), "token", [["x"] * 4 + ["#", "###", *"yyyyyy"]])
    terms = distance_terms(table, "js")
    start, end = terms["position_from_start"], terms["position_from_end"]
    assert [start.labels[bin_] for bin_ in start.bins[3:]] == [
        "0",
        "1",
        "2",
        "3",
        *["4 to 5"] * 2,
        *["6 to 7"] * 2,
        "8 to 11",
    ]
    assert [end.labels[bin_] for bin_ in end.bins[:3]] == ["2", "1", "0"]
    answer = terms["position_from_answer"]
    assert (answer.bins[:3] < 0).all()  # the first response has no answer
    labels = [answer.labels[bin_] for bin_ in answer.bins[3:]]
    assert labels == ["-1", "0", "1", *["2 to 3"] * 2, *["4 to 7"] * 4]


def test_responses_by_loop() -> None:
    table = random_rows(7, [4, 1, 30, 2, 9])
    terms = response_terms(table, "js")["response"]
    means = filled_means(terms.labels, *binned_sums(terms))
    rows = table.to_pylist()
    firsts = [row for row in rows if row["position"] == 0]
    high = [
        sum(row["js"] > 0.1000001 for row in rows if (row["problem_id"], row["sample_id"]) == key)
        for key in ((first["problem_id"], first["sample_id"]) for first in firsts)
    ]
    judged = [first["correct"] for first in firsts if first["correct"] is not None]
    assert means["accuracy"] == pytest.approx(np.mean(judged))
    assert means["length"] == pytest.approx(np.mean([4, 1, 30, 2, 9]))
    assert means["high tokens"] == pytest.approx(np.mean(high))
    assert means["with a high token"] == pytest.approx(np.mean([count > 0 for count in high]))
