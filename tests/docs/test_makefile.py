"""The Makefile's first steps, as someone meets them who has just cloned the repository."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import ROOT

NEEDS_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

OTHER_VERSION = """#!/bin/sh
exec {python} -c "import sys; sys.version_info = ({version}); sys.version = '{text} (main)'; exec(sys.argv[1])" "$2"
"""


@NEEDS_MAKE
def test_an_old_python_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    old = tmp_path / "old_python"
    old.write_text(OTHER_VERSION.format(python=sys.executable, version="3, 10, 1", text="3.10.1"))
    old.chmod(0o755)
    run = subprocess.run(
        ["make", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 2
    assert f"{old} is Python 3.10.1, but 3.11 or newer is needed" in run.stderr.splitlines()[0]
    assert "Installing" not in run.stdout
    assert not (tmp_path / "venv").exists()


@NEEDS_MAKE
def test_the_demo_needs_the_package_alone() -> None:
    """Compilers, browsers and quantizers of the tests would double the wait for a first result."""
    run = subprocess.run(
        ["make", "--dry-run", "demo", "VENV=no_such_venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "--editable ." in run.stdout
    assert "dev" not in run.stdout
    assert "smollm2" not in run.stdout
