"""JSON files that are damaged, paths that cannot be, files that appear whole."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tokenshift.analysis.storage import whole_file as whole_files
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.storage.whole_file import whole_file, write_whole


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b"9" * 5000, b'"a', b"\0"]
)
def test_every_fault_of_json_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"a\.json is damaged \(") as raised:
        read_json(tmp_path / "a.json")
    assert len(str(raised.value).splitlines()) == 1


def test_json_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json") == read_json(tmp_path / "a.json", list) == [1]
    with pytest.raises(DamagedFileError, match="it holds list instead of dict"):
        read_json(tmp_path / "a.json", dict)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


def test_paths_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a", "x") == tmp_path / "a"
    assert user_path(tmp_path / "a", "x") == tmp_path / "a"
    with pytest.raises(ValueError, match=r"output_dir='~nosuchuser/a': ~nosuchuser is no user's home folder"):
        user_path("~nosuchuser/a", "output_dir")
    with pytest.raises(ValueError, match=r"model='aaa.*has 5,000 characters"):
        user_path("a" * 5000, "model")
    with pytest.raises(ValueError, match="zero byte"):
        user_path("a\0b", "model")


def test_contents_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(whole_files.os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(whole_files.os, "replace", lambda *names: (done.append("name"), replace(*names)))
    write_whole(tmp_path / "a.json", "{}")
    assert done == ["sync", "name"]
    with whole_file(tmp_path / "a.json", is_scratch=True) as partial:
        partial.write_text("[]")
    assert done == ["sync", "name", "name"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("number", "is_full"), [(errno.EINVAL, False), (errno.ENOSPC, True)])
def test_a_disk_that_cannot_keep(number: int, is_full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Any) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_text("before")
    monkeypatch.setattr(whole_files.os, "fsync", fail)
    if is_full:
        with pytest.raises(OSError, match="No space"), whole_file(tmp_path / "a") as partial:
            partial.write_text("after")
    else:
        write_whole(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == ("before" if is_full else "after")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
