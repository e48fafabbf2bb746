"""The moments of a recipe at which a signal can strike it: what it does to files of its folder, and what it computes.

Moments are numbered, and the same run passes the same ones. Where a process is killed while it writes a file, that
file is left half-written first: a kill can come at any byte.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any


class Moments:
    """Counts a process's moments, and strikes at one of them.

    Args:
        folder: The folder whose files count.
        record: A file that gets one line per moment, as it is reached.
        strike: The number of the moment, from 1, at which the signal comes; never when None.
        number: The signal.
    """

    def __init__(self, folder: Path, record: Path, strike: int | None, number: int = signal.SIGKILL) -> None:
        self.folder, self.strike, self.number = str(folder), strike, number
        self.process, self.count, self._inside = os.getpid(), 0, False
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def reach(self, what: str, tear: Callable[[], object] | None = None) -> None:
        """Pass a moment.

        Args:
            what: Its description.
            tear: Leaves a file half-written, as a kill at this moment can.
        """
        if self._inside or os.getpid() != self.process:
            return
        self.count += 1
        os.write(self._record, f"{what}\n".encode())
        if self.count == self.strike:
            self._inside = True
            if tear is not None and self.number == signal.SIGKILL:
                tear()
            os.kill(self.process, self.number)
            self._inside = False

    def name(self, path: Any) -> str | None:
        """A path's name in the folder; None for others."""
        if not isinstance(path, str | Path):
            return None
        text = os.path.abspath(path)
        return os.path.relpath(text, self.folder) if text.startswith(self.folder + os.sep) else None

    # What Python does itself -------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Count files opened to be written, renamed and deleted, and processes started."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = any(sign in mode for sign in "wxa+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if writes and (name := self.name(path)) and not name.endswith((".lock", ".holder")):
                self.reach(f"open {name}", (lambda: open(path, "wb").close()) if mode and "w" in mode else None)
        elif event == "os.rename" and (name := self.name(args[1])):
            source = Path(args[0])  # a folder that is no temporary one has finished files
            unfinished = source.is_file() or ".incomplete" in source.parts
            self.reach(f"rename to {name}", (lambda: _halve(source)) if unfinished else None)
        elif event == "shutil.rmtree" and (name := self.name(args[0])):
            self.reach(f"delete {name}/", lambda: _delete_some(Path(args[0])))
        elif event == "subprocess.Popen":
            self.reach("start a process")

    # What libraries do -------------------------------------------------------------------------------------------

    def watch(self, owner: Any, function: str, what: str, path: Callable[..., Any] | None = None) -> None:
        """Count the calls of a function; of one that writes a file, the file is half-written at the strike.

        Args:
            owner: The module or class that has the function.
            function: Its name.
            what: The description of a call.
            path: Gives the file of a call from its arguments.
        """
        original = getattr(owner, function)

        @wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if path is None:
                self.reach(what)
                return original(*args, **kwargs)
            file = path(*args, **kwargs)
            if (name := self.name(file)) is not None:

                def tear() -> None:
                    original(*args, **kwargs)
                    _halve(Path(file))

                self.reach(f"{what} {name}", tear)
            return original(*args, **kwargs)

        setattr(owner, function, watched)

    def watch_libraries(self) -> None:
        """Count what the libraries of the recipes write, and each generation, update and scored batch."""
        import pyarrow.parquet as pq
        import torch
        import transformers.modeling_utils as modeling
        from transformers import GenerationMixin, Trainer

        from tokenshift.analysis.token_table.scoring import PairScorer

        self.watch(pq, "write_table", "write", lambda table, where, *_, **__: where)
        self.watch(torch, "save", "write", lambda obj, f, *_, **__: f)
        self.watch(modeling, "safe_save_file", "write", lambda tensors, filename, *_, **__: filename)
        self.watch(pq.ParquetWriter, "write_table", "write rows")
        self.watch(GenerationMixin, "generate", "generate")
        self.watch(Trainer, "training_step", "update")
        self.watch(PairScorer, "table", "score")


def _halve(path: Path) -> None:
    """Leave half of a file, or of the largest file of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if files:
        largest = max(files, key=lambda file: file.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)


def _delete_some(folder: Path) -> None:
    """Delete about half of what is in a folder, as `rmtree` has when it is killed."""
    for path in sorted(folder.iterdir())[::2] if folder.is_dir() else []:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
