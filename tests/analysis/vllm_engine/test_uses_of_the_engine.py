"""One engine for sampling and for the table: against `transformers`, on CPU in float32."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pocket_models import BASE, requests, save_moved
from helpers.vllm_pairs import ON_CPU, ONE_PROCESS_LESS, PairOnDisk, assert_same_table

from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.engine_scoring import EngineScorer
from tokenshift.analysis.token_table.kept_statistics import KeepingGenerator, KeptScorer
from tokenshift.analysis.token_table.sampled_table import ScoredSampling, ScoringSampler
from tokenshift.analysis.token_table.scoring import PairScorer

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SAMPLING = Sampling(0.9, 0.8, 60, seed=3)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairOnDisk:
    return PairOnDisk(BASE, save_moved(tmp_path_factory.mktemp("moved"), 0.15))


def test_one_model_samples_as_transformers_does(pair: PairOnDisk) -> None:
    from tokenshift.analysis.vllm_engine.engine import EngineModel, EngineOptions, VLLMEngine
    from tokenshift.analysis.vllm_engine.generator import EngineGenerator

    for name, value in (ON_CPU | ONE_PROCESS_LESS).items():
        os.environ.setdefault(name, value)
    wanted = requests(pair.tokenizer, 8, samples=2)
    options = EngineOptions("float32", longest=200, memory_share=0.1, eager=True)
    engine = VLLMEngine(EngineModel(str(pair.rl_path), None, pair.rl.config), None, pair.ends, options)
    responses = EngineGenerator(lambda: engine, SAMPLING)(wanted)
    engine.close()
    assert responses == TransformersGenerator(pair.rl, pair.tokenizer, SAMPLING)(wanted)


@pytest.mark.parametrize("writer", ["rl", "base"])
def test_the_table_made_while_sampling(pair: PairOnDisk, writer: str, tmp_path: Path) -> None:
    """As `analyze_shift` makes it: batches are kept in files, judged, and become rows; nothing is read again."""
    wanted = requests(pair.tokenizer, 8, samples=2)
    settings = ScoredSampling(writer, SAMPLING, 0.7, pair.vocabulary)
    with pair.decoder() as decode:
        sampler = ScoringSampler(lambda: decode.engine, settings, pair.tokenizer)
        keeping = KeepingGenerator(sampler, tmp_path, writer)
        completions = [ids for start in (0, 6, 12) for ids in keeping(wanted[start : start + 6])]
        at_once = sampler.table(wanted, writer)
    model = pair.rl if writer == "rl" else pair.base
    assert completions == TransformersGenerator(model, pair.tokenizer, SAMPLING)(wanted)
    judged = [
        Trajectory(*request.row, request.prompt_ids, ids, correct=index % 3 == 0)
        for index, (request, ids) in enumerate(zip(wanted, completions, strict=True))
    ]
    judged = judged[::-1]  # rows are found by their problem and sample, in whatever order
    kept = KeptScorer(tmp_path, lambda: pytest.fail("a response is read again"), pair.tokenizer)
    table = kept.table(judged, writer)
    scorer = PairScorer(pair.base, pair.rl, pair.tokenizer, temperature=0.9, top_p=0.7)
    expected = scorer.table(judged, writer)
    assert_same_table(table, expected)
    assert len(table) == sum(map(len, completions))
    assert max(expected["js"].to_pylist()) > 0.01  # the two models differ
    not_judged = [Trajectory(*one.row, one.prompt_ids, ids) for one, ids in zip(wanted, completions, strict=True)]
    assert_same_table(at_once, scorer.table(not_judged, writer))


def test_given_trajectories_are_scored_by_prefill(pair: PairOnDisk) -> None:
    wanted = requests(pair.tokenizer, 8)
    completions = TransformersGenerator(pair.base, pair.tokenizer, SAMPLING)(wanted)
    given = [
        Trajectory(*request.row, request.prompt_ids, ids, correct=True)
        for request, ids in zip(wanted, completions, strict=True)
    ]
    given += [Trajectory(90, 0, given[0].prompt_ids, []), Trajectory(91, 0, given[0].prompt_ids, [5])]
    given += [Trajectory(92, 0, given[1].prompt_ids, [*given[1].completion_ids[:-1], 7])]
    scorer = PairScorer(pair.base, pair.rl, pair.tokenizer, temperature=0.9, top_p=0.7)
    with pair.decoder(scores=True) as decode:
        by_engine = EngineScorer(lambda: decode.engine, pair.tokenizer, pair.vocabulary, 0.9, 0.7)
        assert_same_table(by_engine.table(given, "given"), scorer.table(given, "given"))
        ids, logp = by_engine.top_tokens(given[2], 5)
        expected_ids, expected_logp = scorer.top_tokens(given[2], 5)
        assert ids.shape == expected_ids.shape
        assert (ids == expected_ids).mean() > 0.99  # tokens may tie
        torch.testing.assert_close(
            torch.tensor(np.sort(logp)), torch.tensor(np.sort(expected_logp)), rtol=1e-3, atol=1e-3
        )
        assert by_engine.top_tokens(given[8], 5)[0].shape == (2, 0, 5)
        with pytest.raises(ValueError, match="only the first 61 are in both models"):
            by_engine.table([Trajectory(1, 0, [1], [61])], "given")


def test_no_process_of_an_engine_is_left_after_a_kill(pair: PairOnDisk, tmp_path: Path) -> None:
    """An engine's processes end when the process that started it is killed."""
    import signal
    import subprocess
    import sys
    import time

    import psutil

    script = tmp_path / "start.py"
    script.write_text(
        "import sys, time\n"
        "from transformers import AutoConfig\n"
        "from tokenshift.analysis.vllm_engine.engine import EngineModel, EngineOptions, VLLMEngine\n"
        "if __name__ == '__main__':\n"
        "    model = EngineModel(sys.argv[1], None, AutoConfig.from_pretrained(sys.argv[1]))\n"
        "    options = EngineOptions('float32', longest=100, memory_share=0.1, eager=True)\n"
        "    engine = VLLMEngine(model, model, {2}, options)\n"
        "    print('started', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, str(script), str(pair.base_path)]
    environment = os.environ | ON_CPU | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert any(line.startswith("started") for line in process.stdout)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while (left := [child for child in children if child.is_running()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
