"""Runs the parts of a reproduction, several at once, and stops them all when the reproduction is stopped."""

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.child_processes import Children, Stopped, end_orphans, shares, stoppable_pool
from tokenshift.recipes.command_line.start import MISTAKE
from tokenshift.recipes.jobs.reproduction.parts import SCRIPTS, TRAININGS, Part, Scripts
from tokenshift.recipes.jobs.reproduction.view import PartsView, last_line

RECORD_FILE = "parts.json"
"""The settings, the seconds and the end of each part."""

REFRESH = 0.5
"""Seconds between two updates of the table."""

ATTEMPTS = 2
"""Number of tries of a part: one that crashed is tried once more."""


class PartsRecord:
    """The record of the parts of a folder, from this launch and earlier ones.

    Args:
        folder: The folder of the reproduction.

    Raises:
        ValueError: If the record is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._lock = folder / RECORD_FILE, threading.Lock()
        try:
            known = read_json(self._file, dict) if self._file.is_file() else {}
            self._parts: dict[str, dict[str, Any]] = known
        except ValueError as error:
            raise ValueError(f"{self._file} is damaged; delete it, and finished parts are looked at again.") from error

    def is_done(self, part: Part) -> bool:
        """Whether the part has ended with these settings, and its product is there."""
        entry = self._parts.get(part.name, {})
        return bool(entry.get("finished")) and entry["settings"] == _plain(part.recorded) and part.product.exists()

    def seconds(self, part: Part) -> float:
        """Seconds that the part took over all launches; one with more seeds or budgets goes on from what is there."""
        return float(self._parts.get(part.name, {}).get("seconds", 0.0))

    def add(self, part: Part, seconds: float, *, finished: bool) -> None:
        """Record another launch of a part."""
        with self._lock:
            total = round(self.seconds(part) + seconds, 3)
            entry = {"settings": _plain(part.recorded), "seconds": total, "finished": finished}
            self._parts[part.name] = entry
            write_whole(self._file, json.dumps(self._parts, indent=1) + "\n")


def _plain(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings, default=str))


def run_parts(
    parts: Sequence[Part], folder: Path, parallel: int, console: Console, scripts: Scripts = SCRIPTS
) -> None:
    """Run what is left to do of all parts; those that read a failed one are left out.

    The trainings share the machine among themselves; later parts run side by side. Ctrl-C and SIGTERM stop the
    running recipes by SIGINT, and the function waits for them; a second Ctrl-C ends them at once.

    Args:
        parts: All parts, each after those that it reads.
        folder: The folder of the reproduction.
        parallel: Parts at once.
        console: The console that the table is shown on.
        scripts: The script that is launched for each command.

    Raises:
        KeyboardInterrupt: If the reproduction was stopped.
        ValueError: If the record of the parts is damaged.
    """
    record, children = PartsRecord(folder), Children()
    environments: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for share in shares(parallel):
        environments.put(share)
    for part in parts:
        part.state = "done" if record.is_done(part) else "waiting"
        part.seconds = record.seconds(part)

    def work(part: Part) -> None:
        environment = environments.get()
        try:
            _run_part(part, record, children, {} if part.kind == TRAININGS else environment, scripts)
        except Stopped:
            part.state = "waiting"
        finally:
            environments.put(environment)

    running: set[Future[None]] = set()
    with stoppable_pool(children, parallel, console) as pool, PartsView(parts, console) as view:
        while True:
            for part in _ready(parts):
                if len(running) < parallel:
                    part.state = "running"
                    running.add(pool.submit(work, part))
            if not running:
                break
            finished, running = wait(running, timeout=REFRESH, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            view.refresh()


def _ready(parts: Sequence[Part]) -> list[Part]:
    """The waiting parts whose predecessors are done; those that read a failed one are left out for good."""
    state = {part.name: part for part in parts}
    ready = []
    for part in parts:
        before = [state[name].state for name in part.after]
        if part.state == "waiting" and any(one in ("failed", "left out") for one in before):
            part.state = "left out"
        elif part.state == "waiting" and all(one == "done" for one in before):
            ready.append(part)
    return ready


def _run_part(
    part: Part, record: PartsRecord, children: Children, environment: Mapping[str, str], scripts: Scripts
) -> None:
    part.folder.parent.mkdir(parents=True, exist_ok=True)
    end_orphans(part.folder)  # a killed reproduction leaves its part running, which holds the folder
    for attempt in range(1, ATTEMPTS + 1):
        with part.log.open("a", encoding="utf-8") as log:
            log.write(f"--- {part.name}, attempt {attempt}\n")
        started, status = time.monotonic(), 1
        try:
            status = children.run(part.command(scripts), part.folder, part.log, environment)
        finally:
            finished = status == 0 and part.product.exists()
            record.add(part, time.monotonic() - started, finished=finished)
            part.seconds = record.seconds(part)
        if finished or status == MISTAKE:
            break
    part.state = "done" if finished else "failed"
    part.failure = None if finished else last_line(part.log)
