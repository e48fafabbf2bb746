"""Parts of an analysis' memory, by hand."""

import torch

from tokenshift.analysis.divergence.token_statistics import workspace_bytes
from tokenshift.analysis.plan.analysis_memory import (
    BASE_READING,
    CACHES,
    COMPARING,
    DECIDE_COPIES,
    DRAW_COPIES,
    READING,
    SAMPLING,
    ReadModel,
    Texts,
    decoding_parts,
    engine_parts,
    sampling_parts,
    scoring_parts,
)
from tokenshift.analysis.plan.model_sizes import ModelSizes
from tokenshift.analysis.plan.parts import MemoryPlan, Part, peak

SIZES = ModelSizes(
    parameters=1000,
    itemsize=2,
    multiplied=900,
    attention_width=8,
    layers=2,
    hidden=10,
    vocabulary=30,
    cache_per_token=40,
)


class Forward:
    """5 bytes, 7 a token and 1 a pair of tokens."""

    def of(self, rows: int, length: int) -> int:
        return 5 + rows * (length * 7 + length**2)


BASE, RL = (ReadModel(name, SIZES, Forward()) for name in ("base", "RL"))
TEXTS = Texts(prompt=20, response=100, mean_response=60)
CPU = torch.device("cpu")


def by_phase(parts: list[Part], phase: str) -> dict[str, int]:
    return {part.name: part.size for part in parts if phase in part.phases}


def test_sampling() -> None:
    parts = by_phase(sampling_parts([BASE, RL], 3, TEXTS), SAMPLING)
    # slots: 20 + 32 spare, then 53 + 32, 86 + 32, 119 + 32
    assert parts["KV cache"] == 3 * 151 * 40
    assert parts["logits of a step"] == 3 * 30 * 4 * DRAW_COPIES
    assert parts["activations"] == 5 + 3 * (20 * 7 + 20**2)


def test_scoring_by_two_models() -> None:
    parts = scoring_parts(BASE, RL, 500, TEXTS, 50, device=CPU, truncates=True)
    reading, comparing = by_phase(parts, READING), by_phase(parts, COMPARING)
    rows = 4  # of 120 tokens
    assert reading == {
        "activations": 5 + rows * (120 * 7 + 120**2),
        "states of base": rows * 60 * 10 * 2,
        "responses": 50 * 80 * 40,
    }
    assert comparing.pop("statistics") == workspace_bytes(CPU, 30, rows * 60, truncates=True)
    assert comparing == {**{f"states of {name}": rows * 60 * 20 for name in ("base", "RL")}, "responses": 50 * 80 * 40}
    on_gpu = scoring_parts(BASE, RL, 500, TEXTS, 50, device=torch.device("cuda"), truncates=True)
    assert [part.name for part in on_gpu if part.on_host] == ["responses"]


def test_scoring_by_one_model_at_a_time() -> None:
    parts = scoring_parts(BASE, RL, 500, TEXTS, 50, device=CPU, truncates=True, one_at_a_time=True)
    assert set(by_phase(parts, BASE_READING)) == {"activations", "states of base", "responses"}
    assert by_phase(parts, READING)["LM head of base"] == 30 * 10 * 2
    both = [*BASE.weights(BASE_READING), *RL.weights(READING, COMPARING)]
    assert [peak(both, phase) for phase in (BASE_READING, READING, COMPARING)] == [2000, 2000, 2000]


def test_a_long_response_goes_alone() -> None:
    parts = by_phase(scoring_parts(BASE, RL, 50, TEXTS, 50, device=CPU, truncates=True), READING)
    assert parts["activations"] == 5 + 120 * 7 + 120**2


def test_decoding_by_two_policies() -> None:
    draft, tree, lockstep = (
        {part.name: part.size for part in decoding_parts(BASE, RL, 3, TEXTS, block=block, spare=spare, whole=whole)}
        for block, spare, whole in ((32, 1.5, False), (1, 1.5, True), (1, 1.0, False))
    )
    assert draft["KV caches"] == tree["KV caches"] == 3 * (180 + 45) * 80
    assert draft["copied caches"] == 3 * 180 * 20  # one layer of two, of one model
    assert lockstep["KV caches"] == 3 * (120 + 32) * 80
    assert draft["logits of a step"] == 32 * tree["logits of a step"] == 32 * 3 * 30 * 4 * DECIDE_COPIES
    assert tree["activations"] == 5 + 3 * (120 * 7 + 120**2)
    assert draft["activations"] == 5 + 3 * (20 * 7 + 20**2)


def test_an_engine_takes_what_it_is_given_and_more_where_no_text_fits() -> None:
    parts, cached = engine_parts((BASE, RL), 20_000, TEXTS, devices=2, step=240, phase="vLLM")
    read = 2 * (5 + 120 * 7 + 120**2)
    sizes = {part.name: part.size for part in parts}
    assert sizes["weights of base"] == sizes["weights of RL"] == 1000
    assert sizes["activations"] == read
    assert CACHES not in sizes, "30,490 bytes of activations leave no room"
    assert sizes["KV cache"] == 120 * 40
    assert cached == 0
    parts, cached = engine_parts((BASE, RL), 100_000, TEXTS, devices=2, step=240, phase="vLLM")
    assert sum(part.size for part in parts) == 100_000
    assert cached == (100_000 - 2000 - read) // 40


def test_weights_that_are_spread() -> None:
    spread = ReadModel("RL", SIZES, Forward(), on_device=700, waiting=600, devices=2, spread="over 2 GPUs")
    device, host = spread.weights(READING)
    assert (device.size, device.on_host, host.size, host.on_host) == (700, False, 600, True)
    assert spread.cache_per_token == 20


def test_what_runs_out_first() -> None:
    parts = [Part("weights of RL", 10), Part("KV cache", 7, ("a",)), Part("states", 9, ("b",)), Part("x", 99, ("c",))]
    plan = MemoryPlan(parts=parts, phases=("a", "b"), capacity=16)
    assert (plan.peak, plan.fits, plan.tightest_phase) == (19, False, "a"), "which comes first, though b takes more"
    assert plan.largest_parts() == {"weights of RL": 10, "KV cache": 7}
    assert MemoryPlan(parts=parts, phases=("a", "b"), capacity=19).tightest_phase == "b"
    assert MemoryPlan(parts=parts, phases=("a", "b"), capacity=None).fits
