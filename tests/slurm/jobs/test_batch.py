"""The batch scripts: golden texts an admin can read, and what may never get into them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conf import compose, typed
from conf.durations import seconds
from conf.errors import InputError
from conf.schema.cluster import ClusterConfig, SiteConfig
from conf.schema.hf import EvalConfig, ExportConfig, ImportConfig
from conf.schema.pipeline import PipelineConfig
from conf.schema.preprocess import PreprocessCommand
from conf.schema.pretrain import PretrainConfig
from conf.schema.tune import FinetuneConfig
from data_prep.environment import scrubbed
from elm_megatron.run.folder import RunFolder
from slurm.chains import chain
from slurm.chains.stages import stages
from slurm.chains.sweep import Sweep
from slurm.jobs import allocation, batch, container, extras, frozen_code, record, submit, task
from slurm.jobs.environment import dropped, exported
from slurm.jobs.notes import notes as notes_on

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    "snellius": ["model=large", "cluster=snellius"],
    "snellius_8_nodes": ["model=large", "cluster=snellius", "cluster.nodes=8"],
    "snellius_a100": ["model=large", "cluster=snellius_a100", "cluster.account=elm"],
    "snellius_one_gpu": ["model=small", "cluster=snellius", "cluster.gpus_per_node=1", "cluster.time=720"],
    "snellius_container": ["model=large", "cluster=snellius", "cluster.container=/images/elm.sif"],
    "snellius_modules": ["model=large", "cluster=snellius", "cluster.modules=[2024,Python/3.12.3]"],
    "snellius_every_option": [
        *["model=large", "cluster=snellius", "cluster.account=elm", "cluster.qos=normal"],
        *["cluster.reservation=course", "cluster.constraint=scratch-node", "cluster.exclude='gcn[1-3]'"],
        *["cluster.dependency=afterok:4711", "cluster.exclusive=true", "cluster.gpu_type=h100"],
        *["cluster.mail_user=elm@example.org", "cluster.mail_type='END,FAIL'"],
    ],
    "snellius_evaluated": ["model=large", "cluster=snellius", "eval.every_checkpoint=true"],
    "dev_4_nodes": ["cluster=dev", "cluster.nodes=4", "parallel.tp=2", "parallel.pp=2"],
}  # fmt: skip


def config(*argv: str, verb: str = "pretrain", schema: type = PretrainConfig) -> Any:
    found: list[Any] = []
    source = ["source=x"] if verb == "finetune" else []
    compose.run(verb, schema, lambda one: found.append(one), [*argv, *source])
    return found[0]


@pytest.mark.parametrize("case", CASES)
def test_golden_script(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set ELM_GOLDEN=write to accept new texts; read the difference before committing it."""
    monkeypatch.setattr(Path, "cwd", classmethod(lambda cls: cls("/home/elm/project")))
    monkeypatch.setattr(container.sys, "executable", "/suite/.venv/bin/python")
    monkeypatch.setattr(container, "ROOT", Path("/suite"))
    monkeypatch.setattr(frozen_code, "digest", lambda root: "0123456789abcdef")
    chosen = config(*CASES[case], f"run.dir=/home/elm/runs/{case}")
    text = submit.script(chosen, chosen.world_size, "pretrain")
    path = GOLDEN / f"{case}.sh"
    if os.environ.get("ELM_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_ear_looks_on_when_told() -> None:
    script = submit.script(config("cluster=snellius", "cluster.ear=true"), 4, "pretrain")
    assert "#SBATCH --ear=on\n" in script and "#SBATCH --ear-policy=monitoring\n" in script
    assert "--ear" not in submit.script(config("cluster=snellius"), 4, "pretrain")
    with pytest.raises(InputError, match=r"cluster\.ear='true': must be false, cluster=local"):
        config("cluster.ear=true")


def test_preprocess_ranks_meet_over_mpi() -> None:
    cluster = ClusterConfig(executor="slurm", mpi="pmix", time="10")
    assert "--mpi=pmix" in batch.parameters(cluster, Path("/r"), "n", 4, mpi=True)["srun_args"]
    assert "--mpi=none" in batch.parameters(cluster, Path("/r"), "n", 4, mpi=False)["srun_args"]


def test_a_container_sees_every_path_that_the_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, data, image = tmp_path / "caller", tmp_path / "projects", tmp_path / "elm.sif"
    caller.mkdir()
    data.mkdir()
    monkeypatch.chdir(caller)
    keys = ["cluster=dev", f"cluster.container={image}", "cluster.binds=[/opt/lib:/lib64/extra]"]
    script = submit.script(config(*keys, f"data.dir={data}/to/come"), 1, "pretrain")
    ranks = script.partition("# command")[2].partition("# teardown")[0]
    bound = [words.split()[0] for words in ranks.split("--bind ")[1:]]
    assert bound == [str(caller), str(data), "/opt/lib:/lib64/extra"]
    assert f"--env PYTHONPATH={caller}/runs/.code/" in ranks
    assert f"--pwd {caller} {image} python -P -u -m submitit.core._submit" in script and "--nv" not in script
    with pytest.raises(InputError, match="cannot bind a folder with : or ,"):
        submit.script(config(*keys, "run.dir='/scratch/a,b'"), 1, "pretrain")


def test_notes_on_what_is_hardly_meant() -> None:
    site = SiteConfig(scratch="/scratch-shared", scratch_days=14)
    cluster = ClusterConfig(executor="slurm", time="12:00:00", signal_seconds=300, site=site)
    assert notes_on(cluster, Path("/home/elm/runs/a")) == []
    (note,) = notes_on(cluster, Path("/scratch-shared/elm/runs/a"))
    assert "forgets files after 14 days" in note
    cluster.time, cluster.signal_seconds = "1", 30
    (note,) = notes_on(cluster, Path("/home/elm/runs/a"))
    assert note.startswith("cluster.time=1 may leave 0 s for the start")


def test_one_process_asks_for_one_gpu_and_its_share() -> None:
    def script(*keys: str) -> str:
        return submit.script(config(*keys, "source=x", verb="eval", schema=EvalConfig), 1, "eval")

    text = script("cluster=snellius", "cluster.nodes=2")
    for words in (
        "--nodes=1",
        "--gpus-per-node=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=16",
        "--mem=180G",
    ):
        assert f"#SBATCH {words}\n" in text
    assert "--partition=gpu_h100\n" in text
    assert "--gpus-per-node" not in script("cluster=dev", "cluster.nodes=2")


TRAINS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "pipeline": PipelineConfig}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["cluster.tasks_per_node=8"], "cluster.tasks_per_node=8: must be at most cluster.gpus_per_node=4"),
        (["cluster.gpus_per_node=0"], "cluster.gpus_per_node=0: must be at least 1 with cluster.device=gpu"),
        (["cluster.device=cpu"], "cluster.gpus_per_node=4: must be 0 with cluster.device=cpu"),
    ],
)
def test_ranks_gpus_and_device_fit_each_other_where_a_model_is_trained(keys: list[str], words: str) -> None:
    for verb, schema in TRAINS.items():
        with pytest.raises(InputError) as caught:
            config("cluster=snellius", *keys, verb=verb, schema=schema)
        assert words in str(caught.value)
    chosen = config("cluster=snellius", *keys, verb="preprocess", schema=PreprocessCommand)
    text = submit.script(chosen, chosen.preprocess.ranks, "preprocess")
    assert "--gpus" not in text and "--partition=rome\n" in text and "--ntasks-per-node=1\n" in text


def test_gpus_that_are_no_resource_of_slurm_come_with_the_whole_node() -> None:
    chosen = config("cluster=snellius", "cluster.gpus_per_node=0", "cluster.exclusive=true",
                    "cluster.tasks_per_node=8", "train.micro_batch_size=2")  # fmt: skip
    text = submit.script(chosen, chosen.world_size, "pretrain")
    assert "--gpus" not in text and "--exclusive\n" in text and "--ntasks-per-node=8\n" in text
    assert 'CUDA_VISIBLE_DEVICES=""' not in text


def test_gpus_that_do_not_exist_are_booked_for_ranks_on_the_cpu() -> None:
    chosen = config("cluster=dev", "cluster.gpus_per_node=2")
    assert "--gpus-per-node=2\n" in submit.script(chosen, 2, "pretrain")


def notes(chosen: Any) -> list[str]:
    return notes_on(chosen.job_cluster(), Path("/home/elm/runs/a"))


def test_idle_gpus_are_noted() -> None:
    (one,) = notes(config("cluster=snellius", "cluster.tasks_per_node=2"))
    assert one.startswith("cluster.tasks_per_node=2 leaves 2 of the 4 GPUs of each node idle")
    assert notes(config("cluster=snellius", "cluster.gpus_per_node=2")) == []


ASKED = ["cluster=snellius", "cluster.memory_gb=64", "cluster.constraint=scratch-node"]
ASKED += ["cluster.reservation=course", "cluster.gpu_type=h100"]
CHAIN = [*ASKED, "tune.micro_batch_size=1"]


def test_a_verb_without_gpus_asks_for_what_was_written() -> None:
    chosen = config(*ASKED, verb="preprocess", schema=PreprocessCommand)
    text = submit.script(chosen, 1, "preprocess")
    for words in ("--partition=rome", "--mem=64G", "--constraint=scratch-node", "--reservation=course"):
        assert f"#SBATCH {words}\n" in text
    assert "--gpus" not in text and notes(chosen) == []


def test_stages_without_gpus_do_not_ask_another_partition_for_what_training_needs() -> None:
    build, train, _, export, _ = stages(config(*CHAIN, verb="pipeline", schema=PipelineConfig))
    for stage in (build, export):
        text = submit.script(stage.config, 1, stage.verb)
        assert "--partition=rome\n" in text
        for word in ("--mem=64G", "--constraint", "--gpus", "--reservation"):
            assert word not in text, (stage.verb, word)
    assert "--mem=64G\n" in submit.script(train.config, 4, "pretrain")
    for key in ("cluster.cpu_partition=null", "cluster.cpu_partition=gpu_h100"):
        build, *_ = stages(config(*CHAIN, key, verb="pipeline", schema=PipelineConfig))
        text = submit.script(build.config, 1, "preprocess")
        assert "--partition=gpu_h100\n" in text and "--mem=64G\n" in text


def shown(reason: str) -> str:
    """A stand-in for squeue, which knows the jobs that sbatch took (their comments are in its file)."""
    return (
        'while read -r comment; do echo "9|PENDING|2099-01-01T00:00:00|' + reason + '|x|$comment"; done '
        '< "$(dirname "$0")/taken" 2> /dev/null; exit 0\n'
    )


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for two of Slurm's commands: `sbatch` says what stands in `refusal`, or takes the job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    refusal = folder / "refusal"
    sbatch = f"if [ -e {refusal} ]; then cat {refusal} >&2; exit 1; fi; "
    sbatch += f"sed -n 's/^#SBATCH --comment=//p' $1 >> {folder}/taken; "
    for name, text in (("sbatch", f"{sbatch} echo Submitted batch job 9"), ("squeue", shown("None"))):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder


SHOWN = "JobId=9 JobName=x UserId=elm(1000) JobState={state} Reason=None Requeue=1 Restarts={restarts} "
SHOWN += "TimeLimit=00:10:00 SubmitTime=2026-11-24T07:38:11 PreemptEligibleTime=2026-11-24T07:38:12 "
SHOWN += "PreemptTime={time} NumNodes=1 Command={path} WorkDir=/home/elm Comment=elm:{path} \n"
TIME = "2026-11-24T07:40:00"


@pytest.mark.parametrize(
    ("state", "time", "restarts", "path", "done"),
    [
        ("RUNNING", TIME, 0, "/runs/x", "requeue"),
        ("RUNNING", "None", 0, "/runs/x", ""),
        ("COMPLETING", TIME, 1, "/runs/x", ""),  # Slurm itself requeues it
        ("COMPLETING", TIME, 0, "/runs/x", "succeed"),  # at this site it cancels what it preempts
        ("RUNNING", "None", 0, "/runs/PreemptTime=1", ""),
        ("COMPLETING", "None", 0, "/runs/a JobState=RUNNING PreemptTime=1", ""),
    ],
)
def test_a_stopped_job_goes_on_only_when_slurm_preempts_it(
    state: str, time: str, restarts: int, path: str, done: str, tmp_path: Path
) -> None:
    meeting = task.rendezvous(tmp_path, "9", 0)
    meeting.mkdir(parents=True)
    (meeting / task.STOPPED).touch()
    (tmp_path / "logs").mkdir()
    for name in ("9_submitted.pkl", "9_0_log.err"):
        (tmp_path / "logs" / name).touch()
    (tmp_path / "shown").write_text(SHOWN.format(state=state, time=time, restarts=restarts, path=path))
    RunFolder(tmp_path).update(state="running", job_ids=["9"], life=["9", 0])
    commands = {
        # A controller that is being restarted answers the second time.
        "scontrol": f"mkdir {tmp_path}/once 2> /dev/null && exit 1\n"
        f"[ $1 = -o ] && exec cat {tmp_path}/shown\necho $1 $2 >> {tmp_path}/scontrol.calls\n",
        "sbatch": f"echo $@ >> {tmp_path}/sbatch.calls; echo '12;elmtwo'",
        "squeue": "echo '10 afterok:9(unfulfilled),afterany:99(unfulfilled)'",
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "9", "SLURM_CONF": "/etc/slurm.conf"}
    setup = batch.setup_lines(ClusterConfig(), tmp_path, None, sys.executable)
    lines = [*setup, "true", *batch.teardown_lines()]
    ended = subprocess.run(["bash", "-c", "\n".join(lines)], env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0 if done else batch.EXIT_STOPPED, "")
    calls = {path.stem: path.read_text() for path in tmp_path.glob("*.calls")}
    record = RunFolder(tmp_path).read()
    if done == "requeue":
        assert calls == {"scontrol": "requeue 9\n"} and record["state"] == "requeued"
    elif done == "succeed":
        assert calls["scontrol"] == "update JobId=10\n" and "--dependency=afterany:9" in calls["sbatch"]
        assert record["job_ids"] == ["9", "12"] and record["successors"] == {"12": "9"}
        assert record["state"] == "requeued" and "job 12 goes on" in record["reason"]
        assert (tmp_path / "logs/12_submitted.pkl").exists()
    else:
        assert calls == {} and record["state"] == "running"


def test_what_sbatch_said_is_told_whole(slurm: Path) -> None:
    said = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"
    (slurm / "refusal").write_text(f"sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: {said}\n")
    with pytest.raises(InputError) as caught:
        submit.submit(print, config("cluster=snellius"), 4, "pretrain")
    assert f"refused the job: QOSMaxSubmitJobPerUserLimit; {said}." in str(caught.value)
    (slurm / "refusal").write_text("sbatch: error: Unable to contact slurm controller\n")
    with pytest.raises(InputError, match=r"refused the job: Unable to contact slurm controller\.$"):
        submit.submit(print, config("cluster=snellius"), 4, "pretrain")


def test_a_held_job_says_how_it_goes_on(slurm: Path, capsys: pytest.CaptureFixture) -> None:
    """Slurm's word decides: `scontrol release` leaves run.json as it is until the job's next attempt."""

    sweep = Sweep()

    def again() -> tuple[int, str, str]:
        sweep.taken.clear()
        status = sweep.submit(print, config("cluster=snellius", "cluster.time=4-00:00:00"), 4, "pretrain")
        return status, *capsys.readouterr()

    status, out, _ = again()
    assert status == 0 and "job 9 queued on snellius, partition gpu_h100; logs in" in out
    (slurm / "squeue").write_text("#!/bin/sh\n" + shown("JobHeldUser"))
    assert "is live already: job 9" in again()[1]  # held by a person
    RunFolder("runs/pretrain-tiny-sample").update(state="held", reason="job 9 made no new checkpoint")
    status, out, err = again()
    assert (status, out, sweep.taken) == (2, "", ["9"])
    for words in ("job 9 made no new checkpoint", "scontrol release 9", "scancel 9"):
        assert words in err
    assert err.count("\n") == 1
    (slurm / "squeue").write_text("#!/bin/sh\n" + shown("Resources"))
    status, out, err = again()
    assert status == 0 and "is live already: job 9" in out and err == ""
    assert len((slurm / "taken").read_text().splitlines()) == 1


def test_the_points_behind_a_held_one_are_queued(slurm: Path, capsys: pytest.CaptureFixture) -> None:
    (slurm / "squeue").write_text("#!/bin/sh\n" + shown("JobHeldUser"))
    keys = ["run.name='x-train.lr=0.001'", "train.lr=0.001"]
    assert submit.submit(print, config("cluster=snellius", *keys), 4, "pretrain") == 0
    RunFolder("runs/x-train.lr=0.001").update(state="held", reason="no new checkpoint")

    def launch(point: PretrainConfig) -> int:
        return submit.submit(print, point, 4, "pretrain")

    keys = ["-m", "cluster=snellius", "run.name=x", "train.lr=0.001,0.002"]
    assert compose.run("pretrain", PretrainConfig, launch, keys, Sweep().begin) == 2
    out, err = capsys.readouterr()
    assert "x-train.lr=0.002: job 9 queued" in out and "x-train.lr=0.001 is held" in err


def test_features_may_be_joined_by_and_and_or() -> None:
    text = submit.script(config("cluster=snellius", "cluster.constraint='(a&b)|c'"), 4, "pretrain")
    assert "#SBATCH --constraint='(a&b)|c'\n" in text


def test_ranks_must_spread_evenly() -> None:
    with pytest.raises(InputError, match=r"cluster\.nodes=3 does not divide the 4 ranks"):
        batch.parameters(ClusterConfig(executor="slurm", nodes=3), Path("/r"), "n", 4, mpi=False)


EVERYWHERE = ["a\nb", "a\n#SBATCH --uid=0", "$(touch canary)", "`touch canary`", "a;touch canary", "#SBATCH",
              "a\x00", "${oc.env:HOME}", "!!python/object:os.system", "_target_", "a|b", "a&b"]  # fmt: skip
SCHEMAS = {"preprocess": PreprocessCommand, "pretrain": PretrainConfig, "finetune": FinetuneConfig,
           "export": ExportConfig, "eval": EvalConfig, "pipeline": PipelineConfig}  # fmt: skip
HOSTILE = [
    *[
        "a\nb",
        "a\n#SBATCH --uid=0",
        "$(touch canary)",
        "`touch canary`",
        "a;touch canary",
        "#SBATCH",
        "a\x00",
    ],
    *["${oc.env:HOME}", "!!python/object:os.system", "_target_", "a\u2028b", "a|b", "a&b", "a>b", "a\\\\b"],
    *["-x", "%j/x", "*x", "~root", "{a:b}"],
]
QUOTES = ['"a\'b"', "'a\"b'"]  # Hydra takes the outer pair away, the inner one is part of the value
LISTS = ["cluster.modules", "cluster.binds"]
PATTERNS = [
    key for key, hint in typed.hints(ClusterConfig).items() if "Fits" in str(hint) and "list" not in str(hint)
]
TEXT_KEYS = [f"cluster.{key}" for key in PATTERNS if key != "name"] + ["run.name", "run.dir", *LISTS]


def may_hold(key: str, value: str) -> bool:
    """Features of nodes are joined by & and |."""
    return key == "cluster.constraint" and value in ("a|b", "a&b")


@pytest.mark.parametrize("key", TEXT_KEYS)
def test_hostile_values_are_refused(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line, bare and quoted: the script is never made and no canary appears."""
    monkeypatch.chdir(tmp_path)
    wrap = "[{}]" if key in LISTS else "{}"
    hostile = [value for value in HOSTILE if not may_hold(key, value)]
    for value in [*hostile, *(f"'{value}'" for value in hostile), *QUOTES]:
        with pytest.raises(InputError):
            chosen = config("cluster=dev", f"{key}={wrap.format(value)}")
            record.check_folder(Path(chosen.run.dir))
            pytest.fail(f"came through: {submit.script(chosen, 1, 'pretrain')}")
    assert list(tmp_path.iterdir()) == []


def texts(schema: type, prefix: str = "") -> Iterator[str]:
    """Every key of a schema that holds text, or a list of it."""
    for name, hint in typed.hints(schema).items():
        if group := typed.group_of(hint):
            yield from texts(group, f"{prefix}{name}.")
        elif "str" in str(hint) and "Literal" not in str(hint):
            yield f"{prefix}{name}"


@pytest.mark.parametrize("verb", SCHEMAS)
def test_no_key_of_any_verb_takes_what_a_shell_or_yaml_would_act_upon(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = [key for key in texts(SCHEMAS[verb]) if not key.startswith("cluster.site")]
    assert {"run.name", "run.dir", "cluster.account"} <= set(keys) and len(keys) > 20
    for key in keys:
        for value in [value for value in EVERYWHERE if not may_hold(key, value)]:
            with pytest.raises(InputError):
                compose.run(verb, SCHEMAS[verb], lambda one: pytest.fail(f"came through: {one}"),
                            [f"{key}={value}"])  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", [key for key in PATTERNS if key != "name"])
def test_hostile_values_in_a_site_file_are_refused_too(key: str) -> None:
    for value in ["a\nb", "$(x)", "`x`", "a;b", "'", '"', "#SBATCH x", ""]:
        with pytest.raises(InputError, match=f"cluster.{key}"):
            ClusterConfig(**{key: value}).check()


@pytest.mark.parametrize(
    ("verb", "ranks", "words"),
    [
        ("preprocess", 4, ["--cpus-per-task=1", "--mem=16G"]),
        ("export", 1, ["--cpus-per-task=4", "--mem=24G"]),
        ("import_hf", 1, ["--cpus-per-task=4", "--mem=24G"]),
    ],
)
def test_what_uses_no_gpu_asks_for_cores_and_memory(verb: str, ranks: int, words: list[str]) -> None:
    schema = {"preprocess": PreprocessCommand, "export": ExportConfig, "import_hf": ImportConfig}[verb]
    given = ["cluster=snellius", *([] if verb == "preprocess" else ["source=x"])]
    text = submit.script(config(*given, verb=verb, schema=schema), ranks, verb)
    assert all(f"#SBATCH {word}\n" in text for word in words)
    keys = ["cluster.memory_gb=8", "cluster.cpus_per_task=2"]
    own = submit.script(config(*given, *keys, verb=verb, schema=schema), ranks, verb)
    assert "--mem=8G\n" in own and "--cpus-per-task=2\n" in own


def test_a_script_without_a_time_names_none() -> None:
    assert "--time" not in submit.script(config("cluster=dev", "cluster.time=null"), 1, "pretrain")
    assert "--time=0:10:00\n" in submit.script(config("cluster=dev"), 1, "pretrain")


def test_what_a_person_sets_for_communication_passes_or_is_named() -> None:
    env = {"NCCL_DEBUG": "INFO", "https_proxy": "http://proxy:3128", "HTTP_PROXY": "http://me:word@proxy",
           "HF_TOKEN": "x", "CUDA_LAUNCH_BLOCKING": "1", "EDITOR": "vi"}  # fmt: skip
    assert set(exported(env)) == {"NCCL_DEBUG", "https_proxy"}
    assert dropped(env) == ["CUDA_LAUNCH_BLOCKING", "HF_TOKEN", "HTTP_PROXY"]


def test_a_library_that_is_missing_is_named_before_anything_is_queued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    there = extras.is_installed
    monkeypatch.setattr(extras, "is_installed", lambda library: library != "lm_eval" and there(library))
    planned = stages(config("cluster=dev", verb="pipeline", schema=PipelineConfig))
    assert planned[-1].config.tasks == [] and "perplexity alone" in capsys.readouterr().err
    chain.check_scripts(planned)
    monkeypatch.setattr(extras, "is_installed", lambda library: library != "transformers")
    with pytest.raises(InputError, match=r"export needs transformers.*\[hf\]"):
        chain.check_scripts(planned)
    asked = config("source=x", "tasks=[elm_cloze_nl]", verb="eval", schema=EvalConfig)
    monkeypatch.setattr(extras, "is_installed", lambda library: library != "lm_eval")
    with pytest.raises(InputError, match=r"eval needs lm_eval.*\[eval\]"):
        extras.check("eval", extras.measurable(asked))


def test_secrets_stay_behind() -> None:
    env = {"PATH": "/bin", "HOME": "/h", "AWS_SECRET_ACCESS_KEY": "s3cret", "HF_TOKEN": "s3cret",
           "SLURM_CONF": "/c", "SLURM_JOB_ID": "7", "SBATCH_PARTITION": "x", "PMI_RANK": "1"}  # fmt: skip
    assert exported(env) == {"PATH": "/bin", "HOME": "/h", "SLURM_CONF": "/c"}
    assert set(scrubbed(env)) == {"PATH", "HOME", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "SLURM_CONF"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 1800), ("12:00:00", 43200), ("1-00:00:00", 86400), ("5-12:30:01", 477001)],
)
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


def test_limits_of_a_site() -> None:
    site = SiteConfig(max_time="5-00:00:00", gpus=4)
    with pytest.raises(InputError, match="at most 5-00:00:00"):
        ClusterConfig(executor="slurm", time="6-00:00:00", site=site).check()
    with pytest.raises(InputError, match=r"cluster.gpus_per_node=5: must be 0 to 4"):
        ClusterConfig(executor="slurm", gpus_per_node=5, site=site).check()
    with pytest.raises(InputError, match="longer than cluster"):
        ClusterConfig(executor="slurm", time="1", signal_seconds=60).check()


def test_folders_beside_another_are_bound_though_written_through_it():
    folders = [Path("/home/you/elm"), Path("/home/you/elm/../runs/x"), Path("/home/you/elm/data")]
    assert container.outermost(folders) == [Path("/home/you/elm"), Path("/home/you/runs/x")]


def test_ranks_of_an_allocation_share_its_cores() -> None:
    """srun alone would give each rank one core, whatever was allocated."""
    env = {"SLURM_JOB_CPUS_PER_NODE": "72(x2),36"}
    assert allocation.cores_of_rank(env, 4) == 9
    assert allocation.cores_of_rank({"SLURM_JOB_CPUS_PER_NODE": "16"}, 32) == 1
    assert allocation.cores_of_rank({}, 1) == 1
    assert "SLURM_CPUS_PER_TASK" not in allocation.environment({"SLURM_CPUS_PER_TASK": "2"})
