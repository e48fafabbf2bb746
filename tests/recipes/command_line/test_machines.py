"""Launches on several machines that could not come together, and the network interface that is said."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tokenshift.recipes.command_line import machines
from tokenshift.recipes.command_line.command import main
from tokenshift.recipes.command_line.config_files import LAUNCH_CONFIGS
from tokenshift.recipes.command_line.machines import INTERFACES, check_launch_options, settle_machines
from tokenshift.recipes.command_line.start import answer_early

MULTI_NODE = LAUNCH_CONFIGS / "multi_node.yaml"

COMPLETE = {
    "--num_machines": "2",
    "--num_processes": "4",
    "--machine_rank": "1",
    "--main_process_ip": "10.0.0.1",
    "--main_process_port": "29500",
}

NAMES = (
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    *INTERFACES,
)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"--machine_rank": None},
            "A run on 2 machines (num_machines) needs --machine_rank, this machine's number: 0 to 1",
        ),
        ({"--main_process_ip": None}, "needs --main_process_ip, the address of machine 0"),
        ({"--machine_rank": "2"}, "machine_rank=2 is none of 2 machines"),
        ({"--num_processes": "5"}, "num_processes=5 over all 2 machines cannot be shared out evenly"),
        ({"--num_processes": "1"}, "num_processes=1 over all 2 machines"),
        ({"--main_process_port": "0"}, "needs one --main_process_port for all"),
        ({"--main_process_ip": "nowhere.invalid"}, "--main_process_ip 'nowhere.invalid' is not known on this machine"),
    ],
)
def test_a_launch_that_could_not_come_together(changes: dict[str, str | None], message: str) -> None:
    options = {name: value for name, value in {**COMPLETE, **changes}.items() if value is not None}
    check_launch_options(MULTI_NODE, COMPLETE)
    with pytest.raises(ValueError, match=r"\.$") as raised:
        check_launch_options(MULTI_NODE, options)
    assert message in str(raised.value)


def test_the_command_refuses_it_before_anything_is_launched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was launched"))
    assert main(["train", "--launch", "zero3", "--num_machines", "2", "--num_processes", "4"]) == 2
    assert capsys.readouterr().err.startswith("tokenshift: A run on 2 machines (num_machines) needs --machine_rank")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        taken = {**COMPLETE, "--main_process_ip": "127.0.0.1", "--main_process_port": port}
        check_launch_options(MULTI_NODE, taken)  # of another machine
        with pytest.raises(ValueError, match=f"Port {port} of the main machine is taken; give --main_process_port"):
            check_launch_options(MULTI_NODE, {**taken, "--machine_rank": "0"})
    check_launch_options(MULTI_NODE, {**taken, "--machine_rank": "0"})


def test_zero_without_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--launch 'zero2' needs DeepSpeed: pip install 'tokenshift\[deepspeed\]'"):
        check_launch_options(LAUNCH_CONFIGS / "zero2.yaml", {})
    check_launch_options(LAUNCH_CONFIGS / "fsdp2.yaml", {})


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not YAML"), ("- a", "holds no mapping")])
def test_no_accelerate_config(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        check_launch_options(tmp_path / "a.yaml", {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"), [([], "give --machine_rank"), (["--machine_rank", "1"], "give --main_process_ip")]
)
def test_accelerate_itself_refuses_the_config_without_them(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("raise SystemExit('it ran')\n")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(MULTI_NODE), *words]
    run = subprocess.run([*launch, str(tmp_path / "x.py")], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode != 0
    assert message in run.stderr.strip().splitlines()[-1]
    assert "it ran" not in run.stderr


def launched(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    """The environment of the first process of the second of two machines."""
    values: dict[str, str | None] = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}
    values |= {"GROUP_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", **changes}
    for name, value in values.items():
        if value is not None:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": None}, "WORLD_SIZE=4 says that 4 processes work together, but MASTER_ADDR is not set"),
        ({"RANK": None, "MASTER_PORT": None}, "but RANK, MASTER_PORT are not set; start them by"),
        ({"MASTER_ADDR": "127.0.0.1"}, "'127.0.0.1' is the loopback on this machine, where no other one is"),
        ({"MASTER_ADDR": "nowhere.invalid"}, "No network interface of this machine leads to the main one"),
    ],
)
def test_a_process_that_would_wait_for_ever(
    changes: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(monkeypatch, **changes)
    with pytest.raises(ValueError, match=r"\.$") as raised:
        settle_machines()
    assert message in str(raised.value)
    monkeypatch.setattr("tokenshift.recipes.command_line.start._tell_machines", lambda error: None)
    assert answer_early("train", [], "train") == 2
    assert message in capsys.readouterr().err


def test_the_interface_that_leads_to_the_main_machine_is_used_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch)
    monkeypatch.setattr(machines, "_interface_to", lambda address: ("eth7", "10.0.0.2"))
    line = settle_machines()
    assert [os.environ[name] for name in INTERFACES] == ["eth7", "eth7"]
    assert line is not None
    assert line.startswith(f"Machine 1 of 2 ({socket.gethostname()}): gloo and NCCL use the interface eth7 (10.0.0.2)")
    monkeypatch.setattr(machines, "_interface_to", lambda address: pytest.fail("the user has said it"))
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    line = settle_machines()
    assert line is not None
    assert "use the interface eth7 and ib0, by GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME." in line
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert settle_machines() is None  # the machine's first process says it


def test_one_machine_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settle_machines() is None
    launched(monkeypatch, LOCAL_WORLD_SIZE="4", MASTER_ADDR="127.0.0.1")
    assert settle_machines() is None
    assert INTERFACES[0] not in os.environ


# The scripts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that go before the installed ones; `tokenshift` prints its words and its machine."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    command(folder, "tokenshift", 'printf "<%s>" "$@"; echo; exit "${STATUS:-0}"')
    return folder


def command(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def run_script(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LAUNCH_CONFIGS / name), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_ssh_starts_the_command_on_every_machine(tools: Path) -> None:
    # the other machine's shell reads one text, as of ssh
    command(tools, "ssh", 'while [[ $1 == -* ]]; do [[ $1 == -o ]] && shift; shift; done; shift; exec bash -c "$*"')
    words = ["u@10.0.0.1", "10.0.0.2", "--", "train", "--config", "a file.yaml", "--weighting_options", '{"c": 1}']
    run = run_script("launch_ssh.sh", *words, PROCESSES_PER_MACHINE="8", CONFIG="zero3")
    assert run.returncode == 0, run.stderr
    options = "<train><--launch><zero3><--num_machines><2><--num_processes><16><--main_process_ip><10.0.0.1>"
    options += '<--main_process_port><29500><--config><a file.yaml><--weighting_options><{"c": 1}>'
    assert sorted(run.stdout.splitlines()) == [
        f"10.0.0.2: {options}<--machine_rank><1>",
        f"u@10.0.0.1: {options}<--machine_rank><0>",
    ]
    failed = run_script("launch_ssh.sh", *words, PROCESSES_PER_MACHINE="8", OMP_NUM_THREADS="1", STATUS="3")
    assert failed.returncode == 3


def test_slurm_starts_the_command_on_every_machine(tools: Path) -> None:
    command(tools, "scontrol", 'printf "node7\\nnode8\\n"')
    command(
        tools,
        "srun",
        'while [[ $1 == --* ]]; do shift; done; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
    )
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    run = run_script("launch_slurm.sh", "train", "--config", "a file.yaml", SLURM_JOB_ID="123456", **job)
    assert run.returncode == 0, run.stderr
    options = "<train><--launch><multi_node><--num_machines><2><--num_processes><16><--main_process_ip><node7>"
    options += "<--main_process_port><23456><--config><a file.yaml>"
    assert run.stdout.splitlines() == [f"{options}<--machine_rank><{rank}>" for rank in (0, 1)]


@pytest.mark.parametrize(
    ("script", "words", "environment", "message"),
    [
        ("launch_ssh.sh", [], {}, "hosts and a command are needed"),
        ("launch_ssh.sh", ["10.0.0.1", "--"], {}, "hosts and a command are needed"),
        ("launch_ssh.sh", ["--", "train"], {}, "hosts and a command are needed"),
        ("launch_ssh.sh", ["a", "--", "train"], {}, "PROCESSES_PER_MACHINE= is no number of processes"),
        ("launch_slurm.sh", [], {}, "no command is given"),
        ("launch_slurm.sh", ["train"], {}, "there is no Slurm job"),
        (
            "launch_slurm.sh",
            ["train"],
            {"SLURM_JOB_NODELIST": "a", "SLURM_JOB_NUM_NODES": "1"},
            "the processes of a machine are not known",
        ),
    ],
)
def test_too_few_words_are_refused(
    script: str, words: list[str], environment: dict[str, str], message: str, tools: Path
) -> None:
    for name in ("ssh", "srun"):
        command(tools, name, "echo it was launched")
    run = run_script(script, *words, **environment)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"{script}: {message}")
    assert run.stdout == ""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    scripts = sorted(map(str, LAUNCH_CONFIGS.glob("*.sh")))
    assert len(scripts) == 2
    run = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
