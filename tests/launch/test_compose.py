"""The command line: typed configs, one sentence for every mistake, nothing left behind, no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf import compose, overrides, typed
from conf.errors import InputError, shown
from conf.names import CONF
from conf.schema.community import CommunityConfig
from conf.schema.hf import EvalConfig, ExportConfig
from conf.schema.pipeline import PipelineConfig
from conf.schema.preprocess import PreprocessCommand
from conf.schema.pretrain import PretrainConfig
from slurm.chains.sweep import Sweep
from slurm.jobs import submit
from tests.elm_megatron.small_dataset import make_dataset

SCRIPT = """
from conf.compose import main
from conf.schema.pretrain import PretrainConfig
from slurm.chains.sweep import Sweep

@main("pretrain", PretrainConfig, Sweep().begin)
def launch(config):
    print(config.run.name, config.train.steps, config.cluster.nodes)
    return 3 if config.train.steps == 33 else 0

launch()
"""


def points(*argv: str) -> list[PretrainConfig]:
    found: list[PretrainConfig] = []
    compose.run("pretrain", PretrainConfig, lambda config: found.append(config), argv, Sweep().begin)
    return found


def refusal(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        points(*argv)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 700
    return text


def test_defaults_and_overrides() -> None:
    (config,) = points("train.steps=7", "run.name=x", "train.lr=1e-3")
    assert (config.train.steps, config.train.lr, config.run.dir) == (7, 1e-3, "runs/x")
    assert config.model.name == "tiny" and config.corpus.name == "sample"


@pytest.mark.parametrize("text", ["12", "12345e67890123456", "1e5", "1_000", "007", "nan", "modèle één"])
def test_a_text_that_looks_like_a_number_stays_as_typed(text: str) -> None:
    """Of a pseudonym or a run's name; 12345e67890123456 would become inf."""
    found: list = []
    compose.run("community", CommunityConfig, found.append, [f"withdraw={text}"])
    compose.run("export", ExportConfig, found.append, [f"source={text}"])
    assert (found[0].withdraw, found[1].source) == (text, text)
    compose.run("eval", EvalConfig, found.append, [f"source=[a,{text}]" if text.isascii() else "source=12"])
    assert found[2].run.name.startswith("eval")


@pytest.mark.parametrize(
    ("model", "corpus", "vocabulary"), [("tiny", "sample", 512), ("large", "eur", 32000)]
)
def test_a_model_implies_its_corpus_and_tokenizer(model: str, corpus: str, vocabulary: int) -> None:
    (config,) = points(f"model={model}")
    assert (config.corpus.name, config.data.dir) == (corpus, f"data/{corpus}")
    assert config.model.vocab_size == config.tokenizer.vocab_size == vocabulary


def test_a_chosen_corpus_wins_over_the_implied_one() -> None:
    (config,) = points("model=small", "corpus=sample")
    assert (config.corpus.name, config.tokenizer.vocab_size) == ("sample", 512)


def test_corpus_path_names_the_dataset(tmp_path: Path) -> None:
    (config,) = points(f"corpus.path={tmp_path}/theses")
    assert (config.corpus.name, config.data.dir) == ("theses", "data/theses")
    assert config.run.name == "pretrain-tiny-theses"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stepz=1", ["unknown key train.stepz", "did you mean train.steps?", "global_batch_size"]),
        ("modl=tiny", ["unknown key modl", "did you mean model?"]),
        ("+train.extra=1", ["unknown key train.extra"]),
        ("model.name.x=3", ["model.name is a single value"]),
        ("model=gigantic", ["model=gigantic", "allowed are large, small, tiny"]),
        ("train=3", ["train=3", "allowed are"]),
        ("cluster=mars", ["cluster=mars", "local"]),
        ("train.steps=abc", ["train.steps=abc", "a whole number"]),
        ("train.steps=1.5", ["train.steps=1.5", "a whole number"]),
        ("train.steps=true", ["train.steps=true", "a whole number"]),
        ("train.lr=fast", ["train.lr=fast", "a number"]),
        ("train.lr=nan", ["train.lr=nan", "a finite number"]),
        ("train.lr=inf", ["train.lr=inf", "a finite number"]),
        ("train.clip_grad=nan", ["train.clip_grad=nan", "a finite number"]),
        ("parallel.sp=2", ["parallel.sp=2", "true or false"]),
        ("train={steps:3}", ["train"]),
        ("data=x", ["data is a group of keys"]),
        ("train.steps=1,2", ["train.steps holds several values", "-m"]),
        ("train.steps=[1", ["cannot read the value of train.steps"]),
        ("run.name=a=b", ["cannot read the value of run.name"]),
        ("train.steps", ["cannot read train.steps: write key=value"]),
        ("~train.steps", ["train.steps=null"]),
        ("--nope", ["--nope", "key=value"]),
        ("--config-dir=/tmp", ["--config-dir"]),
        ("hydra.run.dir=/tmp/x", ["Hydra's own settings"]),
        ("hydra/launcher=basic", ["Hydra's own settings"]),
        ("parallel.tp=3", ["parallel.tp=3", "1, 2, 4"]),
        ("cluster.setup=[id]", ["cluster.setup is set only by the files in conf/"]),
        ("+cluster.env.LD_PRELOAD=x", ["set only by the files"]),
        ("cluster.executor=slurm", ["set only by the files"]),
        ("cluster.nodes=2", ["cluster.nodes=2", "one machine"]),
        ("cluster.time=12:00", ["cluster.time='12:00'", "D-HH:MM:SS"]),
        ("train.steps=range(5,5)", ["train.steps=range(5,5)", "no points", "range(1,4)"]),
        ("train.steps=range(0,5,0)", ["train.steps=range(0,5,0)", "no points"]),
    ],
)
def test_mistakes_are_one_sentence(override: str, words: list[str]) -> None:
    text = refusal(override)
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    "value",
    ["${oc.env:HOME}", "a\nb", "a\x00b", "a\tb", "`id`", "$(id)", "a;b", "#SBATCH", "a|b", "a&b", "a\\b",
     "!!python/x", "!x", "{_target_:os.system}", "_target_", "\u2028"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["run.name", "run.dir", "corpus.path", "cluster.time", "data.dir"])
def test_values_that_something_would_act_upon_are_refused(key: str, value: str) -> None:
    refusal(f"{key}={value}")
    refusal(f"{key}='{value}'")


def test_a_sweep_is_checked_whole_before_its_first_point_and_names_its_runs() -> None:
    assert [c.run.name for c in points("parallel.tp=1,2", "-m", "run.name=x", "train.steps=2,5")] == [
        "x-parallel.tp=1-train.steps=2",
        "x-parallel.tp=1-train.steps=5",
        "x-parallel.tp=2-train.steps=2",
        "x-parallel.tp=2-train.steps=5",
    ]
    assert [c.run.dir for c in points("-m", "model=tiny,small")] == [
        "runs/pretrain-tiny-sample",
        "runs/pretrain-small-eur",
    ]
    called: list[PretrainConfig] = []
    with pytest.raises(InputError, match=r"train\.steps=x"):
        compose.run("pretrain", PretrainConfig, called.append, ["-m", "train.steps=1,x"], Sweep().begin)
    assert called == []


def test_points_that_differ_only_in_where_they_run_have_names_of_their_own() -> None:
    sites = points("-m", "cluster=snellius,snellius_a100", "model=small,large", "dry_run=true")
    assert [c.run.name for c in sites] == [
        "pretrain-small-eur-cluster=snellius-model=small",
        "pretrain-large-eur-cluster=snellius-model=large",
        "pretrain-small-eur-cluster=snellius_a100-model=small",
        "pretrain-large-eur-cluster=snellius_a100-model=large",
    ]
    times = points("-m", "cluster=snellius", "cluster.time=60,120", "dry_run=true")
    assert [c.run.name for c in times] == [f"pretrain-tiny-sample-cluster.time={t}" for t in (60, 120)]
    named = points("-m", "model=tiny,small", "run.name=x", "dry_run=true")
    assert [c.run.name for c in named] == ["x-model=tiny", "x-model=small"]


@pytest.mark.parametrize(
    ("keys", "first", "second"),
    [
        (["run.dir=x", "train.steps=1,2"], "train.steps=1", "train.steps=2"),
        (["run.dir=x,./x"], "run.dir=x", "run.dir=./x"),
        (["cluster.modules=[a/b],[a_b]"], "cluster.modules=a/b", "cluster.modules=a_b"),
        (["train.steps=5,5"], "points 1", "and 2"),
    ],
)
def test_points_that_would_write_one_run_are_refused(keys: list[str], first: str, second: str) -> None:
    text = refusal("-m", "dry_run=true", *keys)
    assert "share run.dir=" in text and first in text and second in text


def test_points_that_would_replace_each_others_dataset_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def build(verb: str, schema: type, *keys: str) -> int:
        found: list[object] = []
        compose.run(verb, schema, lambda config: found.append(config), ["-m", *keys], Sweep().begin)
        return len(found)

    paths = "corpus.path=/a/texts,/b/texts"
    for verb, schema in (("preprocess", PreprocessCommand), ("pipeline", PipelineConfig)):
        with pytest.raises(InputError) as caught:
            build(verb, schema, paths)
        for word in ("corpus.path=/a/texts", "corpus.path=/b/texts", "data.dir=data/texts"):
            assert word in str(caught.value)
    assert build("preprocess", PreprocessCommand, "corpus.path=/a/texts,/b/books") == 2
    assert build("preprocess", PreprocessCommand, "remove=a,b") == 2
    assert build("pipeline", PipelineConfig, "train.lr=1e-3,2e-3") == 2  # the same dataset, made once
    for key in (
        "preprocess.ranks=1,2",
        "preprocess.chunk_mb=4,8",
        "clean.dedup.memory_mb=64,512",
        "corpus.expected_tokens=5,6",
        "runs_dir=a,b",
    ):
        assert build("preprocess", PreprocessCommand, key) == 2, "the same bytes come out"


def test_points_on_slurm_do_not_make_one_dataset_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def build(*keys: str) -> int:
        found: list[object] = []
        compose.run("pipeline", PipelineConfig, found.append, ["-m", "cluster=dev", *keys], Sweep().begin)
        return len(found)

    points = "train.lr=1e-3,2e-3"
    with pytest.raises(InputError) as caught:
        build(points)
    for words in (
        "would make data.dir=data/sample at the same time",
        "-m train.lr=0.001 alone",
        "cluster.at_once=1",
    ):
        assert words in str(caught.value)
    with pytest.raises(InputError, match="at the same time"):
        build(points, "cluster.at_once=2")
    assert build(points, "dry_run=true") == build(points, "cluster.at_once=1") == 2
    assert build("train.lr=1e-3") == 1  # what the refusal advises
    manifest = Path("data/sample/manifest.json")
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    with pytest.raises(InputError, match="at the same time"):
        build(points)
    make_dataset(manifest.parent)
    assert build(points) == 2
    settings = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(settings | {"stale": "a work was taken down"}))
    with pytest.raises(InputError, match="at the same time"):
        build(points)


def test_the_sweep_over_nodes_that_the_readme_shows_is_one() -> None:
    command = "-m model=small cluster=snellius cluster.nodes=1,2,4,8"
    assert command in (CONF.parent / "README.md").read_text(encoding="utf-8")
    found = points(*command.split(), "dry_run=true")
    assert [(config.cluster.nodes, config.dp) for config in found] == [(1, 4), (2, 8), (4, 16), (8, 32)]


def test_what_a_sweep_lacks_is_named() -> None:
    with pytest.raises(InputError, match="source is not set"):
        compose.run(
            "eval", EvalConfig, lambda config: pytest.fail("called"), ["-m", "limit=1,2"], Sweep().begin
        )


def test_an_interrupted_point_ends_the_sweep() -> None:
    called: list[int] = []

    def stop(config: PretrainConfig) -> int:
        called.append(config.train.steps or 0)
        return 130 if config.train.steps == 2 else 1

    keys = ["-m", "train.steps=1,2,3", "dry_run=true"]
    assert compose.run("pretrain", PretrainConfig, stop, keys, Sweep().begin) == 130
    assert called == [1, 2]


def test_the_command_leaves_nothing_and_returns_the_worst_status(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "caller"
    folder.mkdir()

    def command(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), *argv], cwd=folder, capture_output=True, text=True, timeout=60
        )

    assert command("train.steps=33").returncode == 3
    swept = command("-m", "train.steps=1,33,2", "run.name=x")
    assert (swept.returncode, swept.stderr) == (3, "")
    assert swept.stdout == "x-train.steps=1 1 1\nx-train.steps=33 33 1\nx-train.steps=2 2 1\n"
    wrong = command("train.stepz=1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1 and "Traceback" not in wrong.stderr
    shown = command("--cfg", "job", "model=large")
    assert shown.returncode == 0 and "hidden_size: 2048" in shown.stdout
    left = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert [str(path.parent) for path in left] == ["runs/.sweeps"]  # which runs belong to the sweep


def test_typed_walk() -> None:
    assert shown("a\nb") == "a\\nb"
    assert typed.convert(float, 3, "k") == 3.0
    assert typed.convert(int, 1e6, "k") == 1_000_000
    assert typed.convert(list[str], ["a"], "k") == ["a"]
    assert typed.convert(str | None, None, "k") is None
    with pytest.raises(InputError, match=r"k\[1\]=x"):
        typed.convert(list[int], [1, "x"], "k")
    with pytest.raises(InputError, match="must be a list"):
        typed.convert(list[int], "x", "k")


@pytest.fixture
def own_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ to which a test adds a site."""
    copy = tmp_path / "conf"
    shutil.copytree(CONF, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(compose, "CONF", copy)
    monkeypatch.setattr(overrides, "CONF", copy)
    return copy / "cluster" / "ours.yaml"


@pytest.mark.parametrize("span", ["1:00:00", "12:00:00", "60", "1e2"])
@pytest.mark.parametrize("key", ["time", "max_time"])
def test_a_span_of_time_without_quotes_in_a_site_is_refused(own_site: Path, key: str, span: str) -> None:
    line = f"{key}: {span}" if key == "time" else f"site: {{{key}: {span}}}"
    own_site.write_text(f"name: ours\nexecutor: slurm\n{line}\n", encoding="utf-8")
    text = refusal("cluster=ours")
    assert f'{key}: "1:00:00"' in text and "is written without quotes" in text


def test_a_site_without_a_time_limit_has_the_partitions(own_site: Path) -> None:
    own_site.write_text("name: ours\nexecutor: slurm\n", encoding="utf-8")
    (config,) = points("cluster=ours", "dry_run=true")
    assert config.cluster.time is None
    assert "--time" not in submit.script(config, 1, "pretrain")
    own_site.write_text('name: ours\nexecutor: slurm\ntime: "60"\n', encoding="utf-8")
    (config,) = points("cluster=ours", "dry_run=true")
    assert "#SBATCH --time=60\n" in submit.script(config, 1, "pretrain")
    (config,) = points("cluster=ours", "cluster.time=30", "dry_run=true")
    assert "#SBATCH --time=30\n" in submit.script(config, 1, "pretrain")
