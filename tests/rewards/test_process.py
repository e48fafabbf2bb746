"""A verification process that is stopped, killed, slow to read or short of something."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.process import VerificationProcess
from tokenshift.rewards.verdicts import Verdict

LIMIT = 5.0  # CPU seconds
SLOW = "x^{" * 6 + "x" + "}" * 6
"""A formula whose reading takes about half a second."""


@pytest.fixture(scope="module")
def pool() -> Iterator[VerificationPool]:
    pool = VerificationPool(workers=1, limit=LIMIT)
    assert pool.verdicts([("1", r"\boxed{1}")]) == [Verdict.CORRECT]
    yield pool
    pool.close()


def process_of(pool: VerificationPool) -> subprocess.Popen[bytes]:
    process = pool._idle[0]._process
    assert process is not None
    return process


def test_a_stopped_process_is_replaced_and_blocks_no_write(pool: VerificationPool) -> None:
    stopped = process_of(pool)
    os.kill(stopped.pid, signal.SIGSTOP)
    long = "x" * 3_000_000  # more than a pipe holds
    start = time.monotonic()
    assert pool.verdicts([("2", long + r"\boxed{2}")]) == [Verdict.CORRECT]
    assert time.monotonic() - start < 300, "it blocks"
    assert process_of(pool).pid != stopped.pid
    assert not psutil.pid_exists(stopped.pid), "the stopped process is still there"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_is_killed_from_outside_does_not_cost_the_answer(pool: VerificationPool, end: int) -> None:
    killed = process_of(pool)
    timer = threading.Timer(0.2, os.kill, (killed.pid, end))
    timer.start()
    assert pool.verdicts([(f"{end}+{SLOW}", f"\\boxed{{{SLOW}+{end}}}")]) == [Verdict.CORRECT]
    timer.join()
    assert killed.returncode == -end
    killed = process_of(pool)
    killed.send_signal(end)
    time.sleep(0.2)
    assert pool.verdicts([(str(end), f"\\boxed{{{end}}}")]) == [Verdict.CORRECT], "between two verifications"


def test_an_answer_that_ends_its_process_each_time_scores_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    process = VerificationProcess(LIMIT, decimal_comma=False)
    script = "import sys; print('0', flush=True); sys.stdin.readline(); sys.exit(3)"
    monkeypatch.setattr(sys, "executable", _fake_worker(monkeypatch, script))
    reply = process.ask("1", r"\boxed{1}")
    assert (reply.value, reply.seconds) == (Verdict.KILLED, LIMIT)
    process.stop()


def _fake_worker(monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    popen = subprocess.Popen

    def start(words: list[str], **options: object) -> subprocess.Popen[bytes]:
        return popen([words[0], "-c", script], **options)

    monkeypatch.setattr("tokenshift.rewards.process.subprocess.Popen", start)
    return sys.executable


def test_a_process_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_worker(monkeypatch, "import sys; sys.exit(1)")
    with pytest.raises(RuntimeError, match=r"does not start; `.* tokenshift.rewards.worker 5` says why"):
        VerificationProcess(LIMIT, decimal_comma=False).ask("1", "1")


LIMITS = """
import resource, sys
from tokenshift.rewards import worker
worker.limit_resources()
def fails(kind, action):
    try:
        action()
    except (MemoryError, OSError) as error:
        print(kind, type(error).__name__)
fails("memory", lambda: bytearray(worker.MEMORY_LIMIT))
def write():
    with open("written", "w") as file:
        file.write("x" * 10000)
fails("file", write)
fails("files", lambda: [open("/dev/null") for _ in range(100)])
with worker.bounded(1.0):
    print("seconds", resource.getrlimit(resource.RLIMIT_CPU)[0] <= 6, flush=True)
    while True:
        pass
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not bound memory")
def test_a_process_is_short_of_memory_files_and_time(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LIMITS], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.stdout.split("\n")[:4] == ["memory MemoryError", "file OSError", "files OSError", "seconds True"]
    assert run.returncode == -signal.SIGPROF, run.stderr


def test_limits_that_the_system_does_not_have_are_left_out() -> None:
    code = (
        "import resource\n"
        "del resource.RLIMIT_AS\n"
        "def refuse(*arguments): raise ValueError('not here')\n"
        "resource.setrlimit = refuse\n"
        "from tokenshift.rewards import worker\n"
        "worker.limit_resources()\n"
        "with worker.bounded(5.0) as seconds: worker.verdict_on('1', '1')\n"
        "print(0 <= seconds() < 5)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "True\n", run.stderr
