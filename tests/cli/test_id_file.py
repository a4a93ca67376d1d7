"""Files of ids."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kling_omni_async._cli.exit import Exit, UsageError
from kling_omni_async._cli.options import read_ids


def file_with(content: bytes, folder: Path) -> str:
    """Write a file and give its path."""
    path = folder / "ids.txt"
    path.write_bytes(content)
    return str(path)


def refusal_of(source: str) -> UsageError:
    """Read what must be refused, and give the refusal: one line, exit code 2."""
    with pytest.raises(UsageError) as caught:
        read_ids(source)
    assert caught.value.code == Exit.USAGE
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"", []),
        (b"1\n2\n", ["1", "2"]),
        (b"1\n2", ["1", "2"]),
        (b"\n  1  \n\t\n# all of them\n   # indented\n2\n", ["1", "2"]),
        (b"1 # the first\n2\t#second\n", ["1", "2"]),
        (b"a#b\n", ["a#b"]),
        (b"1\r\n2\r\n", ["1", "2"]),
        (b"\xef\xbb\xbf1\n2\n", ["1", "2"]),
        (b"2\n1\n2\n", ["2", "1", "2"]),
    ],
)
def test_reads_one_id_a_line(content: bytes, ids: list[str], tmp_path: Path) -> None:
    """Blank lines, comments, a BOM and Windows line ends are no part of any id."""
    assert read_ids(file_with(content, tmp_path)) == ids


def test_reads_files_longer_than_one_read(tmp_path: Path) -> None:
    """An id that lies across two reads is one id."""
    ids = [f"{number:018}" for number in range(100_000)]
    assert read_ids(file_with("\n".join(ids).encode(), tmp_path)) == ids


def test_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hyphen stands for stdin."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n")))
    assert read_ids("-") == ["1", "2"]


def test_refuses_a_closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stdin the hyphen is refused in words."""
    monkeypatch.setattr("sys.stdin", None)
    assert str(refusal_of("-")) == "cannot read ids from -: stdin is closed"


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named in one line."""
    path = str(tmp_path / "none.txt")
    assert str(refusal_of(path)) == f"cannot read ids from {path}: No such file or directory"


def test_refuses_a_folder(tmp_path: Path) -> None:
    """A folder is no file of ids."""
    assert "Is a directory" in str(refusal_of(str(tmp_path)))


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\x00\x00", "1\n2\n".encode("utf-16"), b"1\n\xff\xfe2\n"]
)
def test_refuses_binary_files(content: bytes, tmp_path: Path) -> None:
    """What is no UTF-8 text is refused whole."""
    assert "not a text file in UTF-8" in str(refusal_of(file_with(content, tmp_path)))


def test_gives_up_on_endless_binary_input() -> None:
    """An endless device is refused after its first piece."""
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    assert "not a text file" in str(refusal_of("/dev/zero"))
