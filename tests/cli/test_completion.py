"""Completion by shells: scripts that are printed, and what a shell makes of one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from kling_omni_async._cli.app import COMMANDS, Shell
from kling_omni_async._cli.exit import Exit

from .support import Call


@pytest.mark.parametrize("shell", get_args(Shell))
def test_each_shell_gets_a_script(shell: str, call: Call) -> None:
    """It knows every command, and goes to stdout whole."""
    code, stdout, stderr = call("completion", shell)
    assert (code, stderr) == (Exit.OK, "")
    assert all(command in stdout for command in COMMANDS)
    assert "download-tries" in stdout


def test_another_shell_is_refused(call: Call) -> None:
    """The line names those that there are."""
    code, stdout, stderr = call("completion", "ksh")
    assert (code, stdout) == (Exit.USAGE, "")
    assert '"bash", "zsh", "fish", "powershell"' in stderr


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("bash") is None, reason="this system has no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("quer", "query"),
        ("poll --time", "--timeout"),
        ("poll --from ids", "ids.txt"),
        ("poll --jsonl ids", "ids.txt"),
        ("poll --save ids", "ids.txt"),
        ("simulate --ids ids", "ids.txt"),
        ("poll --book ids", "ids.txt"),
        ("work ids", "ids.txt"),
        ("work --until", "--until-empty"),
        ("book li", "list"),
        ("book list ids", "ids.txt"),
        ("book ids.txt list --sta", "--state"),
        ("book ids.txt list --state par", "parked"),
        ("book ids.txt add --from ids", "ids.txt"),
    ],
)
def test_bash_completes(words: str, completed: str, call: Call, tmp_path: Path) -> None:
    """Commands, options, and the names of files where files are meant."""
    (tmp_path / "ids.txt").touch()
    _, script, _ = call("completion", "bash")
    line = f"kling-omni {words}"
    script += f"COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _kling_omni; "
    script += 'echo "$COMPREPLY"'
    bash = ["bash", "--norc", "-c", script]
    done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{completed}\n", "")
