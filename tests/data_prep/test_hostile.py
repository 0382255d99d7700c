"""Files that mean harm, or were never works: set aside with a reason, and nothing written elsewhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from data_prep import raw
from data_prep.job import Preprocess
from data_prep.manifest import Manifest
from tests.data_prep.conftest import SAMPLE, settings
from tests.data_prep.pdf_files import encrypted, pdf

GOOD = sorted(SAMPLE.glob("*.txt"))


@pytest.fixture
def hostile(tmp_path):
    """A corpus of good works among bad ones, and the reason expected for each."""
    corpus, outside = tmp_path / "corpus", tmp_path / "outside"
    corpus.mkdir()
    outside.mkdir()
    for path in GOOD:
        (corpus / path.name).write_bytes(path.read_bytes())
    (outside / "secret.txt").write_bytes(GOOD[0].read_bytes().upper())
    (outside / "folder").mkdir()
    (outside / "folder" / "b.txt").write_bytes(GOOD[1].read_bytes().upper())
    (corpus / "odd.txt").write_bytes("Это текст ".encode("koi8-r") * 100)
    (corpus / "nul.txt").write_bytes(b"binary \x00 data " * 100)
    (corpus / "empty.txt").write_bytes(b"")
    (corpus / "blank.txt").write_bytes(b" \n\n ")
    with (corpus / "line.txt").open("wb") as file:
        for _ in range(200):
            file.write(b"woord " * 166_667)  # one line of 200 MB
    (corpus / "long.txt").write_bytes(b"een lange regel van tien woorden zonder einde en zin " * 250_000)
    (corpus / "link.txt").symlink_to(outside / "secret.txt")
    (corpus / "linked").symlink_to(outside / "folder")
    (corpus / "zero.txt").symlink_to("/dev/zero")
    os.mkfifo(corpus / "pipe.txt")
    (corpus / "line\nbreak.txt").write_bytes(GOOD[2].read_bytes())
    (corpus / "locked.pdf").write_bytes(encrypted())
    (corpus / "cut.pdf").write_bytes(pdf([["text"]] * 20)[:1500])
    (corpus / "pages.pdf").write_bytes(pdf([["text"]] * 5000))
    (corpus / "same.txt").write_bytes(GOOD[3].read_bytes())
    expected = {
        "odd": "not_utf8", "nul": "binary", "empty": "empty", "blank": "empty", "line": "file_too_large",
        "long": "text_too_long", "zero": "symbolic_link", "pipe": "not_a_file",
        "line\\nbreak": "strange_name", "locked": "pdf_encrypted", "cut": "pdf_truncated",
        "pages": "pdf_too_many_pages", "same": "exact_duplicate", "link": "symbolic_link",
    }  # fmt: skip
    return corpus, expected


def test_everything_is_set_aside_with_its_reason(tmp_path, hostile):
    corpus, expected = hostile
    config = settings(tmp_path / "data", corpus__path=str(corpus), corpus__quarantine=True)
    config.corpus.formats = ["txt", "pdf"]
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    Preprocess(config)()
    manifest = Manifest.load(config.data_dir())
    dropped = {
        row["id"]: row["reason"] for row in pq.read_table(manifest.folder / "dropped.parquet").to_pylist()
    }
    assert dropped == expected
    assert manifest.works["in"] == len(GOOD) + len(expected) and manifest.works["out"] == len(GOOD)
    changed = {path for path in tmp_path.rglob("*") if before.get(path) != path.lstat().st_mtime_ns}
    assert all(path.is_relative_to(config.data_dir()) or path == tmp_path for path in changed)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("link.txt", r"link\.txt cannot be used \(it is a symbolic link"),
        ("pipe.txt", r"pipe\.txt cannot be used \(it is no regular file"),
        ("big.txt", r"big\.txt cannot be used \(it is larger than corpus\.max_file_mb"),
        ("a\nb.txt", r"a\\nb\.txt cannot be used \(its name holds signs"),
        (f"{GOOD[0].stem}.pdf", r"\.pdf cannot be used \(another file has the same name"),
    ],
)
def test_without_quarantine_the_build_stops_there(tmp_path, name, says):
    corpus = Path(shutil.copytree(SAMPLE, tmp_path / "corpus"))
    config = settings(tmp_path / "data", corpus__path=str(corpus), corpus__max_file_mb=1)
    config.corpus.formats = ["txt", "pdf"]
    if name.startswith("link"):
        (corpus / name).symlink_to(GOOD[0])
    elif name.startswith("pipe"):
        os.mkfifo(corpus / name)
    else:
        (corpus / name).write_bytes(b"woord " * (200_000 if name.startswith("big") else 200))
    with pytest.raises(InputError, match=says + r".*set corpus\.quarantine=true"):
        Preprocess(config)()
    assert not config.data_dir().exists()
    config.corpus.quarantine = True
    assert len(raw.scan(config.corpus).rejected) == 1


def journal(corpus, *entries):
    """A harvested corpus with the sample's first works, and the settings that build it."""
    (corpus / "files").mkdir(parents=True)
    for number, path in enumerate(GOOD[: len(entries)]):
        shutil.copy(path, corpus / "files" / f"{number}.txt")
    (corpus / "records.jsonl").write_text("".join(f"{entry}\n" for entry in entries))
    return settings(
        corpus.parent / "data", corpus__path=str(corpus), corpus__quarantine=True, tokenizer__vocab_size=400
    )


def kept(number):
    return json.dumps({"id": f"s:{number}", "status": "kept", "file": f"files/{number}.txt"})


def test_a_harvested_work_whose_file_is_gone_is_counted(tmp_path):
    corpus = tmp_path / "corpus"
    outside = json.dumps({"id": "s:out", "status": "kept", "file": "../outside.txt"})
    config = journal(corpus, *map(kept, range(4)), outside)
    shutil.copy(GOOD[4], tmp_path / "outside.txt")
    (corpus / "files" / "2.txt").unlink()
    (corpus / "files" / "4.txt").unlink()
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).works == {"in": 5, "out": 3, "dropped": {"file_missing": 2}}
    config.corpus.quarantine = False
    with pytest.raises(
        InputError, match=r"outside\.txt cannot be used \(the harvest kept it, but the file is gone"
    ):
        Preprocess(config)()


@pytest.mark.parametrize("quarantine", [True, False])
def test_a_harvested_work_that_was_taken_down_is_not_missing(tmp_path, quarantine):
    config = journal(tmp_path / "corpus", *map(kept, range(4)))
    config.corpus.quarantine = quarantine
    config.remove = "s:2"
    Preprocess(config)()
    config.remove = None
    Preprocess(config)()
    assert Manifest.load(config.data_dir()).works == {"in": 4, "out": 3, "dropped": {"taken_down": 1}}


@pytest.mark.parametrize(
    "line", ['{"id": "s:1"}', '{"id": "s:1", "status": "kept"}', '{"status": "kept"}', "[]", "7"]
)
def test_a_line_that_is_no_record_of_a_harvest_is_named(tmp_path, line):
    config = journal(tmp_path / "corpus", kept(0), kept(1), line)
    with pytest.raises(InputError, match=r"records\.jsonl: line 3 is no record of a harvest"):
        Preprocess(config)()
    assert not config.data_dir().exists()


def test_a_torn_line_of_the_harvests_journal_is_passed_over(tmp_path):
    config = journal(tmp_path / "corpus", kept(0), kept(1)[:30], kept(1), kept(2)[:-3])
    assert [work.id for work in raw.scan(config.corpus).works] == ["s:0", "s:1"]


def test_memory_stays_bounded(tmp_path, hostile):
    corpus, _ = hostile
    code = (
        "import pathlib, re, resource, sys\nfrom tests.data_prep.conftest import settings\n"
        "from data_prep.job import Preprocess\n"
        "config = settings(sys.argv[1], corpus__path=sys.argv[2], corpus__quarantine=True)\n"
        "Preprocess(config)()\n"
        # Of itself, getrusage would count what pytest held before exec.
        "own = re.search(r'VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]\n"
        "print('PEAK', own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data"), str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own, children = (int(kilobytes) * 1024 for kilobytes in done.stdout.rpartition("PEAK")[2].split())
    assert own < 600e6
    assert children < 1e9


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")
def test_a_read_only_disk_is_refused_before_anything_starts(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(InputError, match=r"data\.dir=.*cannot be written \(Read-only file system\)"):
            Preprocess(settings(tmp_path / "data" / "sample"))()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_leaves_the_old_dataset_and_says_so(tmp_path, ranks):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        config = settings(disk / "data", preprocess__ranks=ranks)
        Preprocess(config)()
        before = {path.name: path.read_bytes() for path in config.data_dir().iterdir() if path.is_file()}
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 60_000))
        config.clean.min_block_tokens = 26
        with pytest.raises(InputError, match=r"data\.dir=.*the disk is full"):
            Preprocess(config)()
        after = {path.name: path.read_bytes() for path in config.data_dir().iterdir() if path.is_file()}
        assert {name: data for name, data in after.items() if name != ".lock"} == before
        Manifest.load(config.data_dir()).check_files()
        (disk / "ballast").unlink()
        Preprocess(config)()
    finally:
        subprocess.run(["umount", disk], check=True)
