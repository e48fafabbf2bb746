"""Threads and GPUs of cells that run side by side."""

import pytest

from tokenshift.recipes.jobs.comparison.cells import shares


def test_shares_of_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares(1) == [{}]
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(2)] == ["4,5", "6,7"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(4)] == ["4", "5", "6", "7"]
