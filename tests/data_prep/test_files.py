"""Folders that take each other's place, at whatever moment the process is killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from conf.errors import InputError
from data_prep import files

CONTEXT = multiprocessing.get_context("fork")


def folder(path: Path, text: str) -> Path:
    """A folder of two files that belong together."""
    path.mkdir()
    for name in ("one", "two"):
        (path / name).write_text(text)
    return path


def version(path: Path) -> str | None:
    """What a folder holds, if it is whole."""
    texts = {(path / name).read_text() for name in ("one", "two") if (path / name).exists()}
    return texts.pop() if len(texts) == 1 and len(list(path.iterdir())) == 2 else None


def killed_at(point: int, new: Path, final: Path, exchange: bool) -> None:
    """Replace a folder; die at the point-th call that changes the file system."""
    calls = []

    def counted(function):
        def call(*arguments: object, **options: object) -> object:
            calls.append(function)
            if len(calls) > point:
                os._exit(9)
            return function(*arguments, **options)

        return call

    Path.rename, shutil.rmtree = counted(Path.rename), counted(shutil.rmtree)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    files._exchange = counted(files._exchange) if exchange else lambda one, other: False
    files.replace_folder(new, final)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("point", range(6))
def test_a_kill_leaves_one_whole_version(tmp_path: Path, exchange: bool, point: int) -> None:
    final, new = folder(tmp_path / "model", "old"), folder(tmp_path / ".new", "new")
    folder(tmp_path / ".model.old.tmp", "older")  # of an earlier kill
    process = CONTEXT.Process(target=killed_at, args=(point, new, final, exchange))
    process.start()
    process.join()
    if exchange:  # at every moment under its own name
        assert version(final) in ("old", "new")
    files.finish_replacements(tmp_path)
    assert version(final) in ("old", "new")
    if process.exitcode == 0:
        assert version(final) == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    again = folder(tmp_path / ".again", "newest")
    files.replace_folder(again, final)
    assert version(final) == "newest"


@pytest.mark.parametrize("exchange", [True, False])
def test_files_and_links_are_replaced_too(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    kept = folder(tmp_path / "kept", "kept")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "file").write_text("old")
    for name in ("link", "file", "nothing"):
        files.replace_folder(folder(tmp_path / ".new", "new"), tmp_path / name)
        assert version(tmp_path / name) == "new" and not (tmp_path / name).is_symlink()
    assert version(kept) == "kept"
    files.replace_folder(tmp_path / "file" / "one", tmp_path / "nothing" / "two")
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "link", "file", "nothing"}


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota")])
def test_a_full_disk_is_one_sentence(tmp_path: Path, code: int, words: str) -> None:
    with (
        pytest.raises(
            InputError, match=rf"{tmp_path}: .*{words}.*: a log needs 1,234 bytes, .* are free; so"
        ),
        files.full_disk_named(tmp_path, 1234, "a log", "so"),
    ):
        raise OSError(code, os.strerror(code))
    with pytest.raises(PermissionError), files.full_disk_named(tmp_path, 1, "a log"):
        raise PermissionError(errno.EACCES, "Permission denied")
