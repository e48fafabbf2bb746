"""Sweeps decoded as trees of prefixes: the rows of lock-step, each prefix once, and nothing again that is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model
from helpers.cacheless import END, TOKENIZER, UNEQUAL, wrong_draws
from helpers.pocket_models import base_and_moved, requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.cross_sampling.pilot import Budget, find_thresholds
from tokenshift.analysis.cross_sampling.prefix_tree import PrefixTree, TreePolicy, measured_of
from tokenshift.analysis.cross_sampling.sweep import sweep_cells
from tokenshift.analysis.cross_sampling.sweep_run import read_cells, run_cells, token_counts
from tokenshift.analysis.cross_sampling.sweep_trees import SweepTrees, sweep_measured
from tokenshift.analysis.cross_sampling.tree_decoding import TreeDecoder, grow
from tokenshift.analysis.cross_sampling.tree_walk import Walk
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Prompt, Request
from tokenshift.analysis.sampling.responses import no_judge
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.thresholds import LOG_2

THRESHOLDS = {
    "js": (0.0, 0.05, 0.2),
    "forward_kl": (0.1, 0.5),
    "reverse_kl": (0.1, 0.5),
    "entropy_primary": (2.0, 3.5),
    "entropy_intervention": (2.0, 3.5),
    "delta_logp": (-0.5, 0.5),
    "js_top_p": (0.0, 0.3),
    "random": (0.1, 0.6, 0.9),
    "random_disagreement": (0.2, 0.7),
    "position": (-6.0, -2.0),
    "all": (0.0,),
    "none": (0.0,),
}
"""Thresholds of each criterion that part positions of the tiny models."""


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any, Any]:
    base, rl = tiny_model("llama", 0), tiny_model("llama", 1)
    for model in (base, rl):
        model.generation_config.eos_token_id = END
    return base, rl, TOKENIZER


@pytest.fixture(scope="module")
def pocket() -> tuple[Any, Any, Any]:
    return base_and_moved()


def by_lockstep(
    models: tuple[Any, Any, Any], policy: TreePolicy, wanted: Sequence[Request], sampling: Sampling
) -> list[CrossResponse]:
    named = {"base": models[0], "rl": models[1]}
    primary, intervention = (named[name] for name in policy.arm.models)
    return cross_sample(
        primary, intervention, models[2], wanted, plan=policy.plan, sampling=sampling, engine="lockstep"
    )


def grown(tree: PrefixTree, policies: Sequence[TreePolicy], decoder: TreeDecoder) -> Walk:
    """The policies at the ends of all their responses."""
    rows = range(len(tree.requests))
    grow(tree, policies, rows, measured_of(policies), lambda: decoder, lambda: None)
    walk = Walk(tree, policies, rows)
    assert not walk.frontiers
    return walk


def same(ours: CrossResponse, theirs: CrossResponse) -> None:
    assert (ours.problem_id, ours.sample_id, ours.prompt_ids) == (
        theirs.problem_id,
        theirs.sample_id,
        theirs.prompt_ids,
    )
    for name in ("completion_ids", "switched", "primary_ids", "intervention_ids"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
    assert ours.js == pytest.approx(theirs.js, abs=1e-5, nan_ok=True)


def prefixes(responses: Sequence[CrossResponse]) -> set[tuple[Any, ...]]:
    """The prefixes at which a next token was drawn."""
    return {
        (response.problem_id, response.sample_id, *response.completion_ids[:length])
        for response in responses
        for length in range(len(response.completion_ids))
    }


arms = st.sampled_from([(0.0, None), (0.5, None), (-0.5, None), (0.0, 3.0), (0.0, 0.5)])
plans = st.builds(
    lambda threshold, most, arm: Intervention(*threshold, most, *arm),
    st.sampled_from([(criterion, epsilon) for criterion, epsilons in THRESHOLDS.items() for epsilon in epsilons]),
    st.sampled_from([None, None, 0, 1, 3]),
    arms,
)
policies_drawn = st.lists(
    st.builds(TreePolicy, st.sampled_from(["forward", "backward"]), plans), min_size=1, max_size=2
)


@settings(max_examples=10, deadline=None)
@given(
    policies=policies_drawn,
    more=policies_drawn,
    draws=st.sampled_from(["shared", "independent"]),
    temperature=st.sampled_from([0.7, 1.0, 1.5]),
    top_p=st.sampled_from([0.6, 0.95, 1.0]),
    length=st.integers(1, 10),
    seed=st.integers(0, 2**40),
    batch_size=st.sampled_from([1, 2, 5, 32]),
)
def test_rows_are_those_of_lockstep_and_prefixes_are_decoded_once(
    tiny: tuple[Any, Any, Any],
    tmp_path_factory: pytest.TempPathFactory,
    policies: list[TreePolicy],
    more: list[TreePolicy],
    draws: str,
    temperature: float,
    top_p: float,
    length: int,
    seed: int,
    batch_size: int,
) -> None:
    """Also those of policies that are added when the tree was written and read back."""
    sampling, wanted = Sampling(temperature, top_p, length, seed), UNEQUAL
    decoder = TreeDecoder(*tiny, sampling, batch_size, draws)
    tree = decoder.tree(wanted)
    grown(tree, policies, decoder)
    file = tmp_path_factory.mktemp("tree") / "tree.parquet"
    tree.save(file)
    tree, asked = PrefixTree.load(file, wanted[::-1]), [*policies, *more]
    walk, everything = grown(tree, asked, decoder), []
    for index, policy in enumerate(asked):
        plan = replace(policy.plan, draws=draws)
        expected = by_lockstep(tiny, replace(policy, plan=plan), wanted[::-1], sampling)
        for row, theirs in enumerate(expected):
            same(walk.response(index, row), theirs)
        everything += expected
    assert len(tree) == len(prefixes(everything))


@pytest.mark.parametrize("kind", ["llama", "mistral", "mamba", "bart", "rwkv"])
@pytest.mark.filterwarnings("ignore:The state", "ignore:The generation config of 'BartForCausalLM'")
def test_every_kind_of_state_decodes_and_scores_trees(kind: str) -> None:
    base, rl = (tiny_model(kind, seed) for seed in (0, 1))
    for model in (base, rl):
        model.generation_config.eos_token_id = END
    sampling = Sampling(top_p=1.0, max_new_tokens=6, seed=3)
    decoder = TreeDecoder(base, rl, TOKENIZER, sampling, 4, "shared")
    engines = {"llama": "tree", "bart": "tree, lockstep by length", "rwkv": "tree, lockstep without cache"}
    assert decoder.engine == engines.get(kind, "tree, lockstep")
    tree = decoder.tree(UNEQUAL)
    policies = [TreePolicy("forward", Intervention("random", epsilon)) for epsilon in (0.3, 0.5, 0.9)]
    policies.append(TreePolicy("backward", Intervention("random", 0.5)))
    walk = grown(tree, policies, decoder)
    responses = [[walk.response(index, row) for row in range(len(UNEQUAL))] for index in range(len(policies))]
    for policy, made in zip(policies, responses, strict=True):
        primary, intervention = (base, rl) if policy.direction == "forward" else (rl, base)
        assert wrong_draws(made, primary, intervention, sampling) == 0
    assert len(tree) == len(prefixes([response for made in responses for response in made]))
    # a criterion that was not kept is scored along what is there
    decoded = len(tree)
    decoder.score(tree, *tree.missing({policies[0].arm: ["js"]}))
    (js,) = (tree.records.arms[policies[0].arm].scores["js"],)
    assert js == pytest.approx(tree.records.arms[policies[0].arm].js, abs=1e-5)
    assert len(tree) == decoded


def test_what_is_known_is_not_decoded_again(
    pocket: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies that only score what is there run no step, and old scores stay as they are, bit for bit."""
    sampling, wanted = Sampling(1.0, 0.9, 30, seed=2), requests(pocket[2], 4)
    decoder = TreeDecoder(*pocket, sampling, 8, "shared")
    tree = decoder.tree(wanted)
    first = [TreePolicy("forward", Intervention(name, 0.01)) for name in ("none", "all", "js")]
    grown(tree, first, decoder)
    before = {name: list(scores) for name, scores in tree.records.arms[first[0].arm].scores.items()}
    (tmp_path / "float64_criteria.py").write_text("def twice_js(positions):\n    return 2 * positions.js.double()\n")
    monkeypatch.syspath_prepend(tmp_path)
    decoder.decode = lambda *_: pytest.fail("decoded again")  # type: ignore[method-assign, assignment]
    arms = [
        ("backward", Intervention("none")),
        ("backward", Intervention("all")),
        ("forward", Intervention("js", LOG_2)),
    ]
    more = [TreePolicy(*arm) for arm in arms]
    more += [TreePolicy("forward", Intervention("float64_criteria.twice_js", epsilon)) for epsilon in (0.02, 1.4)]
    walk = grown(tree, [*first, *more], decoder)
    assert {name: tree.records.arms[first[0].arm].scores[name] for name in before} == before
    for index, policy in enumerate([*first, *more]):
        for row, theirs in enumerate(by_lockstep(pocket, policy, wanted, sampling)):
            same(walk.response(index, row), theirs)
    tree.save(tmp_path / "tree.parquet")
    loaded = PrefixTree.load(tmp_path / "tree.parquet", wanted)
    assert loaded.records == tree.records
    assert (loaded.parents, loaded.tokens, loaded.depths, loaded.rows, loaded.children) == (
        tree.parents,
        tree.tokens,
        tree.depths,
        tree.rows,
        tree.children,
    )


def test_a_threshold_is_compared_in_the_dtype_of_the_scores(pocket: tuple[Any, Any, Any]) -> None:
    """A score above the threshold in float64 may be equal to it in float32."""
    sampling, wanted = Sampling(1.0, 1.0, 20, seed=4), requests(pocket[2], 2)
    decoder = TreeDecoder(*pocket, sampling, 8, "shared")
    tree = decoder.tree(wanted)
    walk = grown(tree, [TreePolicy("forward", Intervention("js", 0.0))], decoder)
    scores = sorted(score for row in range(2) for score in walk.response(0, row).scores)
    score = scores[len(scores) // 2]
    for epsilon in (score, score * (1 - 1e-9), score * (1 + 1e-9)):  # all are the score in float32
        policy = TreePolicy("forward", Intervention("js", epsilon))
        response = grown(tree, [policy], decoder).response(0, 0)
        expected = [bool(torch.tensor([value]) > epsilon) for value in response.scores]
        assert response.switched == expected


def a_sweep(pocket: tuple[Any, Any, Any], folder: Path, engine: str) -> tuple[Any, ...]:
    wanted = requests(pocket[2], 3)
    prompts = [Prompt(request.row[0], "", request.prompt_ids) for request in wanted]
    run = Decoding(lambda: pocket[:2], pocket[2], Sampling(1.2, 0.95, 12), "lockstep", 2, 8)
    measured = sweep_measured(["forward", "backward"], ["js", "random"], [0.0, 0.5], [2.0])
    trees = SweepTrees(RunFolder(folder), prompts, run, measured) if engine == "tree" else None
    return RunFolder(folder), prompts, run, trees


def test_a_sweep_gives_the_rows_of_lockstep_and_counts_what_it_decoded(
    pocket: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    rows, directions = {}, ["forward", "backward"]
    for engine in ("tree", "lockstep"):
        folder, prompts, run, trees = a_sweep(pocket, tmp_path / engine, engine)
        few = sweep_cells(["forward"], ["js"], [0.01], [], [0.0], [7])
        every = sweep_cells(directions, ["js"], [0.01, 0.3], [], [0.0, 0.5], [7], None, [2.0])
        for cells in (few, every):  # more are asked for later
            run_cells(folder, cells, prompts, no_judge, run, {}, trees=trees)
            if trees is not None:
                table = read_cells(folder, cells, ["seed", "problem_id", "sample_id", "completion_ids"])
                decoded = {
                    (row["seed"], row["problem_id"], row["sample_id"], *row["completion_ids"][:length])
                    for row in table.to_pylist()
                    for length in range(len(row["completion_ids"]))
                }
                assert trees.tokens_decoded == len(decoded)
        counts = token_counts(folder, every)
        rows[engine] = read_cells(folder, every)
        assert counts["tokens_in_cells"] == sum(rows[engine]["length"].to_pylist())
        assert not (folder.path / "units").exists()
    assert counts["distinct_tokens"] < counts["tokens_in_cells"] / 5
    floats = ["scores", "js"]
    assert rows["tree"].drop_columns(floats).equals(rows["lockstep"].drop_columns(floats))
    for name in floats:
        pairs = zip(rows["tree"][name].to_pylist(), rows["lockstep"][name].to_pylist(), strict=True)
        assert all(ours == pytest.approx(theirs, abs=1e-5) for ours, theirs in pairs)
    (folder, prompts, run, trees) = a_sweep(pocket, tmp_path / "tree", "tree")
    assert trees.engine == "tree"
    before = trees.tokens_decoded
    (folder.path / "cells" / f"{every[-1].name}.parquet").unlink()
    refused = replace(run, policies=lambda: pytest.fail("a model was asked for"))
    trees = SweepTrees(folder, prompts, refused, sweep_measured(["forward"], ["js"], [0.0]))
    run_cells(folder, every, prompts, no_judge, refused, {}, trees=trees)  # fewer arms are measured than are there
    assert read_cells(folder, every).equals(rows["tree"])
    assert trees.tokens_decoded == before


def test_the_pilot_finds_the_thresholds_of_lockstep_on_the_paths_of_the_sweep(
    pocket: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    budgets = [
        Budget(direction, criterion, 0.0, None, match, budget)
        for direction in ("forward", "backward")
        for criterion in ("js", "random")
        for match, budget in (("intervened", 0.1), ("intervened", 0.3), ("effective", 0.05))
    ]
    found = {}
    for engine in ("tree", "lockstep"):
        folder, prompts, run, trees = a_sweep(pocket, tmp_path / engine, engine)
        found[engine] = find_thresholds(folder, budgets, prompts[:2], run, trees=trees)
        assert find_thresholds(folder, budgets, [], run, trees=trees) == found[engine]
        if trees is not None:
            decoded = trees.tokens_decoded
            ends = sweep_cells(["forward", "backward"], [], [], [], [0.0], [0])
            trees.grow([(cell.direction, cell.plan) for cell in ends], 0, prompts[:2], 1, "again")
            assert trees.tokens_decoded == decoded  # the effective search has seen both models alone
    for ours, theirs in zip(found["tree"], found["lockstep"], strict=True):
        assert ours.key == theirs.key
        assert (ours.met, ours.tokens) == (theirs.met, theirs.tokens)
        assert ours.epsilon == pytest.approx(theirs.epsilon, abs=1e-5)
        assert ours.share == theirs.share
        assert [share for _, share in ours.tried] == [share for _, share in theirs.tried]


def test_scores_that_are_no_numbers_are_refused_by_every_engine(
    pocket: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenshift_test_nan.py").write_text(
        "import torch\n"
        "def late(positions):\n"
        "    return torch.where(torch.tensor(positions.positions) < 2, 0.0, torch.nan)\n"
    )
    monkeypatch.chdir(tmp_path)
    plan, sampling, wanted = (
        Intervention("tokenshift_test_nan.late", 0.1),
        Sampling(1.0, 1.0, 4),
        requests(pocket[2], 2),
    )
    said = r"criterion='tokenshift_test_nan.late' gave NaN at \d of \d positions; a score must be a number"
    decoder = TreeDecoder(*pocket, sampling, 8, "shared")
    with pytest.raises(ValueError, match=said):
        grown(decoder.tree(wanted), [TreePolicy("forward", plan)], decoder)
    for engine in ("draft", "lockstep"):
        with pytest.raises(ValueError, match=said):
            cross_sample(*pocket, wanted, plan=plan, sampling=sampling, engine=engine)
