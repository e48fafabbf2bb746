"""Rewards against TRL's own, on hostile text, and bounded in time."""

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.rewards import accuracy_reward as trl_accuracy_reward
from trl.rewards import get_soft_overlong_punishment

from tokenshift.analysis.sampling.correctness import is_correct
from tokenshift.rewards import accuracy_reward, configure_verification, format_reward, load_reward
from tokenshift.rewards.accuracy import signed_accuracy_reward, verification_pool
from tokenshift.rewards.format import boxed_answers
from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.registry import reward_extractor
from tokenshift.rewards.verdicts import Verdict

LIMIT = 3.0  # seconds
# TRL 1.16's own accuracy_reward gives this no answer in 120 s.
ENDLESS = r"\boxed{\sum_{k=1}^{900}\sum_{j=1}^{900}\sum_{i=1}^{900}\sqrt{i+j+k}}"


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    configure_verification(workers=2, limit=LIMIT)
    yield
    verification_pool().close()


PAIRS = [
    (r"So \boxed{85}.", "85"),
    (r"So \boxed{86}.", "85"),
    (r"\boxed{\frac{14}{6}}", "7/3"),
    (r"\boxed{0.5}", r"$\frac{1}{2}$"),
    (r"\boxed{x^2 + 2x + 1}", r"$(x+1)^2$"),
    (r"first \boxed{1}, then \boxed{2}", "2"),
    ("The answer is 85", "85"),
    ("no answer", "85"),
    ("", "85"),
    (r"\boxed{}", "85"),
    (r"\boxed{85", "85"),
    (r"\boxed{(1, 2)}", r"$(1, 2)$"),
    (r"\boxed{12\text{ cm}}", "12"),
]


def test_agrees_with_trl() -> None:
    texts, golds = map(list, zip(*PAIRS, strict=True))
    conversations = [[{"role": "assistant", "content": text}] for text in texts]
    with ThreadPoolExecutor(1) as elsewhere:  # off the main thread, TRL's verifier has no limit of the clock
        expected = elsewhere.submit(trl_accuracy_reward, conversations, golds).result()
    assert accuracy_reward(texts, golds) == expected
    assert accuracy_reward(conversations, golds) == expected
    assert 0.0 in expected
    assert 1.0 in expected


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("2^{10}", "1024", "10"),
        (r"3\sqrt{2}", r"3\sqrt{2}", "3"),
        (r"2\pi", r"2\pi", "2"),
        ("5x+1", "5x+1", "5"),
        ("(3, 4)", "(3,4)", "4"),
        (r"\dfrac{\pi}{4}", r"\frac{\pi}{4}", "4"),
        (r"\sqrt{2}", r"\sqrt{2}", "2"),
        ("x^2", "x^2", "2"),
        ("A", "A", "B"),
        ("7/3", r"\frac{7}{3}", "7"),
        ("-12", "-12", "12"),
        ("1,000", "1000", "1"),
        ("$7$", "7", "8"),
        (r"The answer is \boxed{5}.", "5", "6"),
        ("12 cm", "12", "13"),
    ],
)
def test_gold_answers_with_and_without_delimiters(gold: str, right: str, wrong: str) -> None:
    assert accuracy_reward([rf"\boxed{{{right}}}", rf"\boxed{{{wrong}}}"], [gold, gold]) == [1.0, 0.0]


def seconds_of_ended_processes() -> float:
    """CPU seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_endless_verification_scores_zero_within_the_limit_and_is_counted() -> None:
    metrics = {}
    accuracy_reward([r"\boxed{1}"] * 2, ["1", "2"])  # the processes run
    before = seconds_of_ended_processes()
    rewards = accuracy_reward([ENDLESS, r"\boxed{7}", ENDLESS + " "], ["3", "7", "3"], log_metric=metrics.__setitem__)
    assert rewards == [0.0, 1.0, 0.0]
    assert metrics == {"verification/killed": 2.0}
    assert seconds_of_ended_processes() - before < 2 * (LIMIT + 2) + 10  # both ended, each after its start
    assert accuracy_reward([r"\boxed{8}"], ["8"]) == [1.0]


def test_works_off_the_main_thread() -> None:
    rewards: list[float | None] = []
    thread = threading.Thread(target=lambda: rewards.extend(accuracy_reward([r"\boxed{9}", ENDLESS], ["9", "3"])))
    thread.start()
    thread.join(300)
    assert rewards == [1.0, 0.0]


def test_lost_process_is_replaced() -> None:
    pool = VerificationPool(workers=1, limit=LIMIT)
    assert pool.verdicts([("1", r"\boxed{1}")]) == [Verdict.CORRECT]
    process = pool._idle[0]._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # neither answers nor ends
    assert pool.verdicts([("2", r"\boxed{2}")]) == [Verdict.CORRECT], "it says nothing about the answer"
    process = pool._idle[0]._process
    assert process is not None
    process.kill()
    process.wait()
    assert pool.verdicts([("3", r"\boxed{3}")]) == [Verdict.CORRECT]
    pool.close()
    assert pool.verdicts([("4", r"\boxed{4}")]) == [Verdict.CORRECT], "a closed pool cannot be used again"
    pool.close()


def test_verdicts_are_cached() -> None:
    pool = VerificationPool(workers=1, limit=LIMIT)
    pairs = [(str(i), rf"\boxed{{{i % 2}}}") for i in range(4)]
    first = pool.verdicts(pairs)
    assert first == [Verdict.CORRECT, Verdict.CORRECT, Verdict.WRONG, Verdict.WRONG]
    pool._idle[0].stop()
    assert pool.verdicts(pairs + pairs) == first * 2
    assert pool._idle[0]._process is None, "the process was asked again"
    pool.close()


def test_no_process_outlives_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "from tokenshift.rewards.pool import VerificationPool\n"
        f"pool = VerificationPool(workers=1, limit={LIMIT})\n"
        "pool.verdicts([('1', '1')])\n"
        "print(pool._idle[0]._process.pid, flush=True)\n"
        f"pool.verdicts([('3', {ENDLESS!r})])\n"
    )
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    time.sleep(0.5)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 300  # CPU seconds of a limit take long on a busy machine
    while time.monotonic() < deadline and Path(f"/proc/{worker}/cmdline").exists():
        time.sleep(0.2)
    assert not Path(f"/proc/{worker}/cmdline").exists()


def test_users_script_is_not_run_again_by_the_processes(tmp_path: Path) -> None:
    """As `multiprocessing`'s spawn would do with a script that has no `__main__` guard."""
    (tmp_path / "math.py").write_text("raise SystemExit('the wrong math')")
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; sys.path.pop(0)\n"
        "from tokenshift.rewards import accuracy_reward\n"
        "print('started', accuracy_reward([r'\\boxed{1}'], ['1']))\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.stdout == "started [1.0]\n", run.stderr


def test_unparseable_gold_gives_none_with_one_warning_naming_the_row(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            rewards = accuracy_reward(
                [r"\boxed{1}"] * 3, ["1", "nothing to parse here !!", "1"], problem_id=["a", "b", "c"]
            )
            assert rewards == [1.0, None, 1.0]
    assert len(caplog.records) == 1
    assert "(b)" in caplog.text


def test_signed_accuracy_is_one_or_minus_one_and_none_stays_none() -> None:
    texts = [r"\boxed{1}", r"\boxed{2}", r"\boxed{1}", "no answer"]
    golds = ["1", "1", "nothing to parse here !!", "1"]
    logged: dict[str, float] = {}
    assert load_reward("signed_accuracy_reward")(texts, golds, log_metric=logged.__setitem__) == [1, -1, None, -1]
    assert accuracy_reward(texts, golds) == [1, 0, None, 0]
    assert logged == {"verification/killed": 0.0}
    assert [is_correct(reward) for reward in signed_accuracy_reward(texts, golds)] == [True, False, None, False]
    # with the whole length penalty a right answer is worth more than a short wrong one
    assert signed_accuracy_reward(texts[:1], golds[:1])[0] - 1 > signed_accuracy_reward(texts[1:2], golds[1:2])[0]
    assert reward_extractor("signed_accuracy_reward") == reward_extractor("accuracy_reward")


@settings(deadline=None)  # a worker may be busy
@given(text=st.text(), gold=st.text())
def test_any_text_gets_a_reward_or_none(text: str, gold: str) -> None:
    assert accuracy_reward([text], [gold])[0] in (0.0, 1.0, None)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"\boxed{1}", 1.0),
        (r"\boxed{\frac{1}{2}} and so on", 1.0),
        (r"\boxed{\{1, 2\}}", 1.0),
        (r"\boxed{1} \boxed{1}", 0.0),
        (r"\boxed{\boxed{1}}", 1.0),
        (r"\boxed{}", 0.0),
        (r"\boxed{ }", 0.0),
        (r"\boxed{1", 0.0),
        ("1", 0.0),
        ("", 0.0),
    ],
)
def test_format_reward(text: str, reward: float) -> None:
    assert format_reward([text]) == [reward]
    assert format_reward([[{"role": "assistant", "content": text}]]) == [reward]


@given(st.text(alphabet="\\boxed{}1 "))
def test_boxes_are_balanced(text: str) -> None:
    for answer in boxed_answers(text):
        assert rf"\boxed{{{answer}}}" in text


def test_empty_conversation_and_missing_content() -> None:
    assert format_reward([[]]) == [0.0]
    assert accuracy_reward([[{"role": "assistant", "content": None}]], ["1"]) == [0.0]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed"}, {"type": "text", "text": "{1}"}]}]
    assert accuracy_reward([parts], ["1"]) == format_reward([parts]) == [1.0]


def test_rewards_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_reward("accuracy_reward") is accuracy_reward
    (tmp_path / "my_rewards.py").write_text(
        "def mine(completions, **columns):\n    return [3.0 for _ in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_reward("my_rewards.mine")(["a"]) == [3.0]
    ours = load_reward("get_soft_overlong_punishment", overlong_max_length=10, overlong_cache=4)
    lengths = [[0] * n for n in (3, 6, 7, 10, 11)]
    assert ours(completion_ids=lengths) == get_soft_overlong_punishment(10, 4)(completion_ids=lengths)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("accuracy", "reward_funcs='accuracy' is no reward.* Known are accuracy_reward"),
        ("acuracy_reward", r"did you mean accuracy_reward\?"),
        ("nowhere.at_all", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("math.nothing", "has no nothing"),
        ("math.pi", "is a float, not a function"),
        ("get_soft_overlong_punishment", "needs 0 < overlong_cache <= overlong_max_length"),
    ],
)
def test_bad_reward_names(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_reward(name)


def test_verification_processes_stay_small() -> None:
    heavy = "('torch', 'trl', 'transformers', 'datasets', 'tokenshift.analysis.divergence')"
    code = f"import sys, tokenshift.rewards.worker; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(("workers", "limit"), [(0, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf")), (1, 1e10)])
def test_bad_pool_sizes(workers: int, limit: float) -> None:
    with pytest.raises(ValueError, match="must be at least 1, and limit="):
        configure_verification(workers, limit)
