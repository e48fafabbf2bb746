"""The pair engine against the lock-step engine: tokens, decisions and scores in float32, on CPU."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pocket_models import BASE, THRESHOLDS, requests, save_moved
from helpers.vllm_pairs import PairOnDisk, assert_same

from tokenshift.analysis.cross_sampling.criteria import SHIPPED_CRITERIA
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.cross_sampling.pair_engine import STEP, CrossSettings, PairDecoder
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.vllm_engine.engine import StepRequest

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SAMPLING = Sampling(0.9, 0.95, 60, seed=3)

PLANS = [
    *(("forward", Intervention(name, THRESHOLDS[name])) for name in SHIPPED_CRITERIA),
    *(("backward", Intervention(name, THRESHOLDS[name])) for name in ("js_top_p", "delta_logp", "all")),
    ("forward", Intervention("js", 0.001, most=2)),
    ("forward", Intervention("js", 0.01, gamma=0.7, draws="independent")),
    ("backward", Intervention("js", 0.01, most=1, sharpening=2.0)),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairOnDisk:
    """Pocket's base and a moved copy, which differ in their configs too: in rotary settings."""
    folder = save_moved(tmp_path_factory.mktemp("moved"), 0.6)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"]["rope_theta"] = 8000.0
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return PairOnDisk(BASE, folder)


@pytest.fixture(scope="module")
def decode(pair: PairOnDisk) -> Iterator[PairDecoder]:
    with pair.decoder() as decoder:
        yield decoder


@pytest.mark.parametrize(("direction", "plan"), PLANS, ids=lambda value: getattr(value, "criterion", value))
def test_every_criterion_direction_and_draw(
    pair: PairOnDisk, decode: PairDecoder, direction: str, plan: Intervention
) -> None:
    """One engine for all plans: prompts are in the cache of prefixes from the second plan on."""
    wanted = requests(pair.tokenizer, 4, samples=2)
    assert_same(decode(direction, plan, wanted, SAMPLING), pair.reference(direction, plan, wanted, SAMPLING))


def test_a_response_goes_on_from_tokens_that_are_there(pair: PairOnDisk, decode: PairDecoder) -> None:
    """As continuations of a shared prefix do: positions, and replacements that count, go on too."""
    plan, begun = Intervention("js", 0.005, most=3), 6
    wanted = requests(pair.tokenizer, 12)
    whole_responses = pair.reference("forward", plan, wanted, SAMPLING)
    long = [index for index, response in enumerate(whole_responses) if len(response.completion_ids) > begun]
    wanted, reference = [wanted[index] for index in long], [whole_responses[index] for index in long]
    assert any(sum(response.effective[:begun]) for response in reference)
    settings = CrossSettings("base", "rl", SAMPLING, plan, pair.vocabulary).text
    continued = decode.engine(
        [
            StepRequest(
                request,
                STEP,
                settings,
                SAMPLING.max_new_tokens,
                response.completion_ids[:begun],
                sum(response.effective[:begun]),
            )
            for request, response in zip(wanted, reference, strict=True)
        ]
    )
    for response, whole in zip(continued, reference, strict=True):
        assert response.completion_ids == whole.completion_ids
        for name in ("switched", "primary_ids", "intervention_ids"):
            assert response.record[name] == getattr(whole, name)[begun:]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"max_num_batched_tokens": 8, "max_num_seqs": 8}, id="chunked prefill"),
        pytest.param({"block_size": 32, "num_gpu_blocks_override": 14, "max_num_seqs": 24}, id="preemption"),
    ],
)
def test_what_vllm_does_to_a_batch_leaves_decisions_alone(pair: PairOnDisk, options: dict[str, Any]) -> None:
    wanted, plan = requests(pair.tokenizer, 12, samples=2), Intervention("js", 0.005, most=3)
    reference = pair.reference("forward", plan, wanted, SAMPLING)
    with pair.decoder(more={**options, "disable_log_stats": False}) as decode:
        responses = decode("forward", plan, wanted, SAMPLING)
        metrics = {metric.name: getattr(metric, "value", None) for metric in decode.engine._llm.get_metrics()}
    assert_same(responses, reference)
    if "num_gpu_blocks_override" in options:
        assert metrics["vllm:num_preemptions"], "no request was preempted: the test shows nothing"


def test_compiled_models_and_a_second_start_from_the_cache(
    pair: PairOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    wanted, plan = requests(pair.tokenizer, 6), Intervention("js", 0.005)
    references = {
        direction: pair.reference(direction, plan, wanted, SAMPLING) for direction in ("forward", "backward")
    }
    for _start in ("cold", "warm"):
        with pair.decoder(eager=False) as decode:
            for direction, reference in references.items():
                assert_same(decode(direction, plan, wanted, SAMPLING), reference)
