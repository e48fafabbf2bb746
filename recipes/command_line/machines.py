"""Runs on several machines: launches that would wait for ever are refused, and the network interface is told.

Where a launch lacks its machine's number or the main machine's address, every machine waits for the others without a
word. gloo takes the interface of the host's name, often the loopback, by which no other machine is reached.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenshift.recipes.command_line.config_files import read_launch

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Environment variables that name the network interface of torch's communication on CPUs and on GPUs."""

PORT = 29500
"""The main process's port where nobody says otherwise; accelerate's default."""


def check_launch_options(file: Path, options: Mapping[str, str]) -> None:
    """Refuse a launch that accelerate would begin and that could not come together.

    Args:
        file: The accelerate config.
        options: Options of `accelerate launch` that go over it, with their hyphens.

    Raises:
        ValueError: If the config is none; if DeepSpeed is asked for and missing; on several machines, if the machine's
            number or the main machine's address or port is missing or wrong, the port is taken, or the processes
            cannot be shared out.
    """
    config = read_launch(file)
    if str(config.get("distributed_type")).upper() == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise ValueError(
            f"--launch {file.stem!r} needs DeepSpeed: pip install 'tokenshift[deepspeed]', or --launch fsdp2, which "
            "shares out as much without it."
        )
    given = {**config, **{name.removeprefix("--"): value for name, value in options.items()}}
    settings = config.get("deepspeed_config")
    launcher = settings.get("deepspeed_multinode_launcher") if isinstance(settings, dict) else None
    if launcher not in (None, "standard"):
        return  # DeepSpeed's own launcher starts the other machines from this one
    machines = _number(given.get("num_machines"), 1)
    if _number(config.get("num_machines"), 1) == 1 and "--machine_rank" not in options:
        given["machine_rank"] = None  # a config of one machine says 0, on every machine
    if machines > 1:
        _check_several(machines, given)


def is_on_several_machines(launcher: Sequence[str]) -> bool:
    """Whether the words of a launcher, as `split_launch` gives them, start a run on several machines."""
    words = dict(pairwise(launcher))
    if "--config_file" not in words:
        return False
    config = read_launch(Path(words["--config_file"]))
    return bool(_number(words.get("--num_machines", config.get("num_machines")), 1) > 1)


def _check_several(machines: int, given: Mapping[str, Any]) -> None:
    several = f"A run on {machines} machines (num_machines)"
    rank = _number(given.get("machine_rank"))
    if rank is None:
        raise ValueError(
            f"{several} needs --machine_rank, this machine's number: 0 to {machines - 1}, 0 the main one."
        )
    if rank >= machines:
        raise ValueError(f"machine_rank={rank} is none of {machines} machines, which count from 0 to {machines - 1}.")
    address = str(given.get("main_process_ip") or "")
    if not address or " " in address:  # words, where a config has no address
        raise ValueError(f"{several} needs --main_process_ip, the address of machine 0, the same on every machine.")
    port = _number(given.get("main_process_port"), PORT)
    if port == 0:
        raise ValueError(f"{several} needs one --main_process_port for all, and 0 would choose one on each machine.")
    processes = _number(given.get("num_processes"), 0)
    if processes < machines or processes % machines:
        raise ValueError(
            f"num_processes={processes} over all {machines} machines cannot be shared out evenly; give a multiple of "
            f"{machines}."
        )
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ValueError(f"--main_process_ip {address!r} is not known on this machine: {error.strerror}.") from error
    if rank == 0 and _is_taken(port, family):
        raise ValueError(
            f"Port {port} of the main machine is taken; give --main_process_port another, on all machines."
        )


def _number(value: Any, default: int | None = None) -> Any:
    """A value as a whole number of at least 0; the default where it is none."""
    return int(value) if str(value).isdecimal() else default


def _is_taken(port: int, family: int) -> bool:
    """Whether something on this machine listens at a port."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def settle_machines() -> str | None:
    """Look at what the launcher said to this process, before it waits for the others.

    On several machines, name the interface that leads to the main one to gloo and NCCL, where the environment does
    not name one.

    Returns:
        A line that says which interface is used, for the first process of each machine; None on one machine.

    Raises:
        ValueError: If the launcher's variables are not complete, or no interface leads to the main machine.
    """
    size = _number(os.environ.get("WORLD_SIZE"), 1)
    if size <= 1:
        return None
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"WORLD_SIZE={size} says that {size} processes work together, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; start them by `tokenshift ... --launch` or accelerate "
            "launch, which set all of them, or unset WORLD_SIZE."
        )
    local = _number(os.environ.get("LOCAL_WORLD_SIZE"), size)
    if local >= size:
        return None
    address = os.environ["MASTER_ADDR"]
    if not all(os.environ.get(name) for name in INTERFACES):
        interface, own = _interface_to(address)
        for name in INTERFACES:
            if not os.environ.get(name):
                os.environ[name] = interface
        way = f" ({own}), by which it reaches {address}; "
    else:
        way = ", by "
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    machine = _number(os.environ.get("GROUP_RANK"), int(os.environ["RANK"]) // local)
    used = dict.fromkeys(os.environ[name] for name in INTERFACES)
    return (
        f"Machine {machine} of {size // local} ({socket.gethostname()}): gloo and NCCL use the interface "
        f"{' and '.join(used)}{way}{' and '.join(INTERFACES)}{' name others' if 'reaches' in way else ''}."
    )


def _interface_to(address: str) -> tuple[str, str]:
    """The network interface by which this machine reaches an address, and its own address there.

    Raises:
        ValueError: If the address is not known, is the loopback, or nothing leads there.
    """
    names = " and ".join(INTERFACES)
    try:
        family, _, _, _, target = socket.getaddrinfo(address, int(os.environ["MASTER_PORT"]), type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # sends nothing: the system chooses a way
            own = str(probe.getsockname()[0])
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No network interface of this machine leads to the main one, {address!r} ({error}); correct "
            f"--main_process_ip, or set {names}."
        ) from error
    if ipaddress.ip_address(own.partition("%")[0]).is_loopback:
        raise ValueError(
            f"The main machine's address {address!r} is the loopback on this machine, where no other one is; give "
            f"--main_process_ip the address in the network that joins them, or set {names}."
        )
    import psutil  # here: only runs on several machines need it

    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == own.partition("%")[0] for entry in addresses):
            return name, own
    raise ValueError(f"{own}, by which this machine reaches {address}, is on no network interface; set {names}.")


def tell_machines(program: str) -> None:
    """Settle the interface, and say it to whoever started the run.

    Args:
        program: What stands before the line.

    Raises:
        ValueError: As of `settle_machines`.
    """
    if line := settle_machines():
        print(f"{program}: {line}", file=sys.stderr)
