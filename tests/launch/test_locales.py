"""Commands in locales that are not UTF-8: the same bytes on the disk, and output that degrades."""

from __future__ import annotations

import codecs
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from conf import overrides, process
from conf.names import CONF
from conf.schema.pretrain import PretrainConfig

ROOT = CONF.parent
NAME = "scripties-één-ü"
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    "bare": {"LANG": "C"},
    "latin-1": {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
}


def command(verb: str, folder: Path, locale: str, *keys: str) -> subprocess.CompletedProcess[bytes]:
    """A launcher's bytes in a locale; one that the machine does not have falls back to C."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **LOCALES[locale]}
    return subprocess.run(
        [sys.executable, str(ROOT / f"launch/{verb}.py"), *keys], cwd=folder, env=env, capture_output=True
    )


@pytest.mark.parametrize("locale", ["C", "latin-1"])
def test_a_dataset_made_in_any_locale(locale: str, tmp_path: Path) -> None:
    """Folder and file names, texts and settings hold accents; what is written is UTF-8."""
    folder = tmp_path / "map met spaties en é"
    works = folder / NAME
    works.mkdir(parents=True)
    sample = sorted((ROOT / "data_prep/sample").glob("*.txt"))
    for path in sample:
        (works / f"wérk-{path.name}").write_bytes(path.read_bytes())
    keys = [f"corpus.path={NAME}", "corpus.name=ours", f"run.name={NAME}", "tokenizer.vocab_size=400"]
    keys += [f"data.dir=data-{NAME}", f"corpus.source={NAME}"]
    done = command("preprocess", folder, locale, *keys)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert (folder / f"data-{NAME}" / "manifest.json").exists()
    written = yaml.safe_load((folder / "runs" / NAME / "config.yaml").read_text(encoding="utf-8"))
    assert (written["corpus"]["path"], written["run"]["name"]) == (NAME, NAME)
    page = (folder / f"data-{NAME}" / "report.html").read_text(encoding="utf-8")
    assert "<html" in page.lower()
    again = command("preprocess", folder, "bare", *keys)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("locale", LOCALES)
def test_what_a_terminal_cannot_show_is_written_plainer(locale: str, tmp_path: Path) -> None:
    shown = command("preprocess", tmp_path, locale, f"corpus.path={NAME}", "dry_run=true")
    assert shown.returncode == 0, shown.stderr
    assert f"{NAME} → data".encode() in shown.stdout or b" -> data" in shown.stdout
    refused = command("preprocess", tmp_path, locale, f"corpus.path={NAME}")
    assert refused.returncode == 2 and b"Traceback" not in refused.stderr
    assert refused.stderr.count(b"\n") == 1
    listed = command("preprocess", tmp_path, locale, "--help")
    assert listed.returncode == 0 and b"preprocess.ranks=1" in listed.stdout


def test_tables_and_arrows_stay_readable() -> None:
    codecs.register_error(process.PLAINER, process.plainer)
    assert "┏━┓ → é…".encode("ascii", process.PLAINER) == b"+-+ -> \\xe9..."
    assert "┃é┃".encode("latin-1", process.PLAINER) == b"|\xe9|"


def test_a_name_in_another_normal_form_is_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed, meant = (unicodedata.normalize(form, f"run.name={NAME}") for form in ("NFD", "NFC"))
    assert typed != meant
    assert overrides.check([typed], PretrainConfig, sweep=False) == [f"++run.name='{NAME}'"]
    folder = tmp_path / typed.partition("=")[2]
    folder.mkdir()
    path = f"corpus.path={folder}"
    assert overrides.check([path], PretrainConfig, sweep=False) == [
        f"++corpus.path='{folder}'"
    ]  # it is there as it is


def test_a_second_checkout_runs_its_own_code(tmp_path: Path) -> None:
    """Its launcher takes code and conf/ from beside itself, whatever is installed or on PYTHONPATH."""
    second = tmp_path / "second"
    for name in ("conf", "data_prep", "elm_megatron", "slurm"):
        (second / name).parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / name), str(second / name)], check=True)
    subprocess.run(["cp", "-r", str(ROOT / "launch"), str(second / "launch")], check=True)
    tiny = second / "conf/model/tiny.yaml"
    tiny.write_text(
        tiny.read_text(encoding="utf-8").replace("num_layers: 4", "num_layers: 3"), encoding="utf-8"
    )
    probe = "import conf.names, slurm.jobs.submit as s; print(conf.names.__file__, s.__file__)"
    for path in ("", str(ROOT)):
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path}
        shown = subprocess.run(
            [sys.executable, str(second / "launch/pretrain.py"), "--cfg", "job"],
            cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=True,
        )  # fmt: skip
        assert "num_layers: 3" in shown.stdout
        code = f"import sys; sys.path.insert(0, {str(second / 'launch')!r})\nimport checkout, subprocess\n"
        code += f"subprocess.run([sys.executable, '-c', {probe!r}], check=True)"
        ranks = subprocess.run(
            [sys.executable, "-c", code], cwd="/", env=env, capture_output=True, encoding="utf-8", check=True
        )
        assert ranks.stdout.count(str(second)) == 2
