"""Two machines as network namespaces: a training over both, and what each says when something happens to the other.

    python tests/faults/nodes.py                      # every fault, each followed by the same command again
    python tests/faults/nodes.py --only "cut link"

It needs root, `ip netns` and a Linux kernel with veth. The namespaces share files, so that both machines have one
output folder, as a cluster's shared disk gives them.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

TIMEOUT = 15
"""`ddp_timeout` of the trainings, seconds."""

LIMIT = 150
"""Seconds after which a run is ended."""

PORT = 29541

TRAIN = (
    "--model_name_or_path pocket --dtype float32 --bf16 false --dataset_name pocket --train_size 24 --eval_size 4 "
    "--steps_per_generation 2 --per_device_train_batch_size 4 --num_generations 4 --learning_rate 1e-3 "
    "--max_completion_length 16 --save_steps 1 --logging_steps 1 --report_to none --verify_workers 1 --max_steps 4 "
    f"--resume_from_checkpoint true --ddp_timeout {TIMEOUT}"
)


def missing() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for command in ("ip", "unshare", "hostname"):
        if shutil.which(command) is None:
            return f"there is no `{command}` command"
    name = f"ts{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None


@dataclass
class Machine:
    """One of two machines: a namespace with an address and a host name, and its end of the cable between them."""

    rank: int
    namespace: str
    interface: str
    address: str
    others: str
    runs: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, out: Path, words: str, log: Path) -> subprocess.Popen[str]:
        """Begin the training of this machine; what it prints goes into a file."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', f"machine{self.rank}"]
        launcher = ["-m", "tokenshift.recipes.command_line.command", "train", "--launch", "multi_node"]
        launcher += ["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(self.rank)]
        launcher += ["--main_process_ip", self.others if self.rank else self.address]
        launcher += ["--main_process_port", str(PORT), "--output_dir", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
            environment.pop(name, None)
        with log.open("w") as output:
            run = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *named, sys.executable, *launcher, *words.split()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
        self.runs.append(run)
        return run

    def kill(self) -> None:
        """End all its processes at once, as a machine that loses its power."""
        for run in self.runs:
            for process in _family(run.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def plug(self, state: str) -> None:
        """Its end of the cable: `up` or `down`."""
        _ip("-n", self.namespace, "link", "set", self.interface, state)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines that reach each other by one cable, and nothing else."""
    name = f"ts{os.getpid()}"
    cables = (f"v{os.getpid()}a", f"v{os.getpid()}b")
    addresses = ("10.77.0.1", "10.77.0.2")
    machines = tuple(
        Machine(rank, f"{name}{letter}", cables[rank], addresses[rank], addresses[1 - rank])
        for rank, letter in enumerate("ab")
    )
    try:
        for machine in machines:
            _ip("netns", "add", machine.namespace)
        _ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for machine in machines:
            _ip("link", "set", machine.interface, "netns", machine.namespace)
            _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
            _ip("-n", machine.namespace, "link", "set", "lo", "up")
            machine.plug("up")
        yield machines[0], machines[1]
    finally:
        for machine in machines:
            machine.kill()
            for run in machine.runs:
                run.wait()
            subprocess.run(["ip", "netns", "del", machine.namespace], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass
class Outcome:
    """The result of a training on two machines.

    Attributes:
        statuses: the exit statuses of both launchers; None for one that had to be ended.
        said: what each printed.
        seconds: from the fault (the start, where it is one of the arguments) to the end of each.
    """

    statuses: list[int | None]
    said: list[str]
    seconds: list[float]

    def lines(self, machine: int) -> list[str]:
        """The lines of the training itself, without its launcher's and its progress."""
        return [line for line in self.said[machine].splitlines() if line.startswith("grpo_divweighted.py: ")]


def train(
    machines: tuple[Machine, Machine],
    out: Path,
    words: tuple[str, str] = (TRAIN, TRAIN),
    strike: Callable[[], None] | None = None,
    after: str = "checkpoint-1",
) -> Outcome:
    """Train on both machines, and let something happen.

    Args:
        machines: the two.
        out: the output folder.
        words: the arguments on each.
        strike: the fault; None for an undisturbed run.
        after: the file of the output folder with which it comes.
    """
    logs = [out.with_name(f"{out.name}.{machine.rank}.log") for machine in machines]
    runs = [machine.start(out, given, log) for machine, given, log in zip(machines, words, logs, strict=True)]
    started, struck = time.monotonic(), strike is None
    ends: list[float | None] = [None, None]
    while None in ends and time.monotonic() - started < LIMIT:
        if not struck and (out / after).exists():
            assert strike is not None
            strike()
            started, struck = time.monotonic(), True
        for index, run in enumerate(runs):
            if ends[index] is None and run.poll() is not None:
                ends[index] = time.monotonic() - started
        time.sleep(0.05)
    for machine in machines:
        machine.kill()
    for run in runs:
        run.wait()
    statuses = [run.returncode if end is not None else None for run, end in zip(runs, ends, strict=True)]
    return Outcome(statuses, [log.read_text() for log in logs], [LIMIT if end is None else end for end in ends])


def cut_link(machines: tuple[Machine, Machine], out: Path) -> Outcome:
    """The cable is pulled in the middle of the training."""
    try:
        return train(machines, out, strike=lambda: machines[1].plug("down"))
    finally:
        machines[1].plug("up")


def killed_machine(machines: tuple[Machine, Machine], out: Path) -> Outcome:
    """One machine loses its power, all its processes."""
    return train(machines, out, strike=machines[1].kill)


def other_config(machines: tuple[Machine, Machine], out: Path) -> Outcome:
    """One machine was given another learning rate."""
    return train(machines, out, (TRAIN, f"{TRAIN} --learning_rate 2e-3"))


def missing_path(machines: tuple[Machine, Machine], out: Path) -> Outcome:
    """One machine has not got the file of problems."""
    return train(machines, out, (TRAIN, f"{TRAIN} --dataset_name nowhere.jsonl"))


def goes_on(machines: tuple[Machine, Machine], out: Path) -> Outcome:
    """The same command again."""
    return train(machines, out)


FAULTS: dict[str, Callable[[tuple[Machine, Machine], Path], Outcome]] = {
    "cut link": cut_link,
    "killed machine": killed_machine,
    "other config": other_config,
    "missing path": missing_path,
}


SAYS: dict[str, tuple[str, str]] = {
    "cut link": ("not answered within ddp_timeout. It runs on machine1.", "within ddp_timeout. It runs on machine0."),
    "killed machine": ("Another process of this run is gone. It runs on machine1.", ""),
    "other config": ("learning_rate is 0.001 on rank 0 (host machine0), but 0.002 on rank 1 (host machine1)", ""),
    "missing path": ("that this process has not: dataset_name='nowhere.jsonl'", "dataset_name='nowhere.jsonl'"),
}
"""Words that a line of each machine must have; nothing where it says nothing, or another machine speaks for all."""


def wrongs(name: str, outcome: Outcome) -> list[str]:
    """The faults in the end of a training that a fault struck, or of an undisturbed one (`goes on`)."""
    found = ["a machine did not end"] * (None in outcome.statuses)
    if name not in SAYS:
        return found + ["it did not end well"] * (outcome.statuses != [0, 0])
    found += ["it ended well"] * (0 in outcome.statuses)
    for rank, words in enumerate(SAYS[name]):
        if not any(words in line for line in outcome.lines(rank)) and words:
            found.append(f"machine {rank} does not say: {words}")
    return found


def main() -> int:
    """Let every fault happen, print what each machine says, and go on; 1 if some run did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose names have these words")
    arguments = parser.parse_args()
    if reason := missing():
        print(f"skipped: {reason}")
        return 0
    wrong = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder, two_machines() as machines:
        print(f"host {socket.gethostname()}, ddp_timeout {TIMEOUT} s")
        for name, fault in FAULTS.items():
            if arguments.only not in name:
                continue
            out = Path(folder) / name.replace(" ", "_")
            for what, run in ((name, fault), (f"{name}, the same command again", goes_on)):
                outcome = run(machines, out)
                found = wrongs(what, outcome)
                wrong += len(found)
                print(*(f"WRONG: {text}" for text in found), sep="\n", end="\n" if found else "")
                for rank in range(2):
                    print(f"{what}, machine {rank}: status {outcome.statuses[rank]}, {outcome.seconds[rank]:.1f} s")
                    print(*(f"    {line}" for line in outcome.lines(rank)), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
