"""Files that moved between two attempts are recognised by their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from elm_megatron.run import inputs
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.resume import check_resume


def written(path: Path, text: str) -> str:
    """A file's path as a configuration holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def tuned(*files: str, weights: list[int] | None = None) -> dict[str, Any]:
    """A tuning run's configuration."""
    return {"sft": {"files": list(files), "weights": weights or []}, "dpo": {"files": []}}


@pytest.mark.parametrize("first_version", [False, True])
def test_tuning_files_may_move(tmp_path: Path, first_version: bool) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    one, two = (written(tmp_path / "old" / name, name) for name in ("one.json", "two.json"))
    before = tuned(one, two)
    run.update(state="cancelled", **({} if first_version else inputs.facts(before)))
    here = [written(tmp_path / "new" / name, Path(name).name) for name in ("one.json", "two.json")]
    other = written(tmp_path / "new" / "other.json", "other")

    def resumed(after: dict[str, Any]) -> None:
        check_resume(before, after, "run", inputs.moved(run, before, after))

    resumed(tuned(*here))
    for wrong in ([here[1], here[0]], [here[0]], [here[0], other], [*here, other], [here[0], "/nowhere"]):
        with pytest.raises(InputError, match=r"sft\.files=.* may not change on resume"):
            resumed(tuned(*wrong))
    with pytest.raises(InputError, match=r"sft\.weights="):
        resumed(tuned(*here, weights=[1, 2]))
    for path in (one, two):
        Path(path).unlink()  # moved, not copied
    if first_version:
        with pytest.raises(InputError, match=r"sft\.files="):
            resumed(tuned(*here))
    else:
        resumed(tuned(*here))


@pytest.mark.parametrize("first_version", [False, True])
def test_the_parts_of_a_blend_may_move(tmp_path: Path, first_version: bool) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()

    def blend(root: str, weight: int = 3, text: str = "a") -> dict[str, Any]:
        for name in ("a", "b"):
            written(tmp_path / root / name / "manifest.json", text if name == "a" else "b")
        parts = [{"dir": str(tmp_path / root / name), "weight": w} for name, w in (("a", weight), ("b", 1))]
        return {"data": {"blend": parts}}

    before = blend("old")
    (hashes,) = inputs.facts(before)["inputs"].values()
    known = {"blend": [{"manifest_sha256": one} for one in hashes]} if first_version else inputs.facts(before)
    run.update(state="cancelled", **known)
    for name in ("a", "b"):
        (tmp_path / "old" / name / "manifest.json").unlink()
    after = blend("new")
    check_resume(before, after, "run", inputs.moved(run, before, after))
    for wrong in (blend("new", weight=4), blend("new", text="built again")):
        with pytest.raises(InputError, match=r"data\.blend="):
            check_resume(before, wrong, "run", inputs.moved(run, before, wrong))
