"""Two processes of an engine that share both models, on a CPU in float32: as one process, and as the other engines."""

import pytest
from helpers.pocket_models import BASE, requests, save_moved
from helpers.vllm_pairs import PairOnDisk, assert_same, assert_same_table

from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.engine_scoring import EngineScorer
from tokenshift.analysis.token_table.sampled_table import ScoredSampling, ScoringSampler
from tokenshift.analysis.token_table.scoring import PairScorer

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SAMPLING = Sampling(0.9, 0.8, 60, seed=3)

PLANS = [
    ("forward", Intervention("js", 0.005, most=3)),
    ("backward", Intervention("js_top_p", 0.01)),
    ("forward", Intervention("delta_logp", 0.05, gamma=0.7, draws="independent")),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairOnDisk:
    return PairOnDisk(BASE, save_moved(tmp_path_factory.mktemp("moved"), 0.15))


@pytest.fixture(autouse=True)
def _a_core_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")


def test_cross_sampling_and_the_table_made_while_sampling(pair: PairOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = requests(pair.tokenizer, 8, samples=2)
    responses = {}
    for devices in (2, 1):
        if devices == 1:
            monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0")
        with pair.decoder(tensor_parallel_size=devices) as decode:
            responses[devices] = [decode(direction, plan, wanted, SAMPLING) for direction, plan in PLANS]
            settings = ScoredSampling("rl", SAMPLING, 0.7, pair.vocabulary)
            sampler = ScoringSampler(lambda decode=decode: decode.engine, settings, pair.tokenizer)
            trajectories, _ = sampler(wanted)
            table = sampler.table(wanted, "rl")
        assert [one.completion_ids for one in trajectories] == TransformersGenerator(
            pair.rl, pair.tokenizer, SAMPLING
        )(wanted)
        scorer = PairScorer(pair.base, pair.rl, pair.tokenizer, temperature=0.9, top_p=0.7)
        assert_same_table(table, scorer.table(trajectories, "rl"))
    for (direction, plan), two, one in zip(PLANS, responses[2], responses[1], strict=True):
        assert_same(two, one)
        assert_same(two, pair.reference(direction, plan, wanted, SAMPLING))


def test_given_trajectories(pair: PairOnDisk) -> None:
    wanted = requests(pair.tokenizer, 8)
    completions = TransformersGenerator(pair.base, pair.tokenizer, SAMPLING)(wanted)
    given = [
        Trajectory(*request.row, request.prompt_ids, ids) for request, ids in zip(wanted, completions, strict=True)
    ]
    scorer = PairScorer(pair.base, pair.rl, pair.tokenizer, temperature=0.9, top_p=0.7)
    with pair.decoder(scores=True, tensor_parallel_size=2) as decode:
        by_engine = EngineScorer(lambda: decode.engine, pair.tokenizer, pair.vocabulary, 0.9, 0.7)
        assert_same_table(by_engine.table(given, "given"), scorer.table(given, "given"))
