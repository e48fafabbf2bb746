"""Recipes without their imports' ten seconds: a server that has imported them forks a process for each launch.

`python tests/helpers/forked_recipes.py serve SOCKET RECIPE ...` serves. Its other form, `run SOCKET SCRIPT ...`, is
launched in the place of `python SCRIPT ...`: it has the script's output and status, and lives and dies with it.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def served(folder: Path, *recipes: str) -> Iterator[list[str]]:
    """The words between `python` and a recipe's path that launch it without its imports.

    Args:
        folder: Where the server's socket is made.
        recipes: The recipes that the server imports.
    """
    address = folder / "s"
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(address), *recipes],
        stdin=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    while not address.exists():
        assert server.poll() is None
        time.sleep(0.05)
    try:
        yield [__file__, "run", str(address)]
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(30)


def run(address: str, words: list[str]) -> int:
    """Have the server run a script with this process's output, folder and environment; its exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = json.dumps({"words": words, "environment": dict(os.environ), "folder": os.getcwd()})
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [1, 2])
        connection.sendall(request.encode())
        answer = connection.recv(8)
    return int(answer) if answer else 70


def _read(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += connection.recv(count - len(found))
    return found


def _request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 2)
    request: dict[str, Any] = json.loads(_read(connection, int.from_bytes(head, "big")))
    return request, descriptors


def _work(connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """In the forked process."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for place, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, place)
    sys.argv = request["words"]
    sys.path[0] = os.path.dirname(request["words"][0])
    status: Any = 0
    try:
        runpy.run_path(request["words"][0], run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(status).encode())
    os._exit(status)


def serve(address: str, recipes: list[str]) -> None:
    """Fork for each connection; kill the process whose launcher is gone. Ends with its own standard input.

    Figures are empty files: drawing them would take longer than all else.
    """
    drawing: Any = importlib.import_module("matplotlib.figure")  # here: the launched side must start at once
    drawing.Figure.savefig = lambda self, file, **options: Path(file).write_bytes(b"")
    for recipe in recipes:
        importlib.import_module(f"tokenshift.recipes.{recipe}")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    running: dict[socket.socket, int] = {}
    while True:
        for ready in select.select([sys.stdin, listening, *running], [], [])[0]:
            if ready is sys.stdin:
                for pid in running.values():
                    os.killpg(pid, signal.SIGKILL)
                return
            if ready is listening:
                connection, _ = listening.accept()
                request, descriptors = _request(connection)
                pid = os.fork()
                if not pid:
                    _work(connection, request, descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                running[connection] = pid
                continue
            pid = running.pop(ready)  # closed, at the end or since the launcher was killed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            ready.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
