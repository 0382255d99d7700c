"""EAR's energy is read back after a job, from a stand-in of eacct with a table in EAR's form."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conf.plain import plain
from conf.schema.cluster import ClusterConfig, SiteConfig
from elm_megatron.run.folder import RunFolder
from slurm.jobs import ear

# As EAR's user guide prints it.
HEAD = """JOB-STEP USER APPLICATION POLICY NODES AVG/DEF/IMC(GHz) TIME(s) POWER(W) GBS CPI ENERGY(J)
G-POW (T/U) G-FREQ""".replace("\n", " ")
TABLE = f"""    {HEAD}
  4711-sb  user  pretrain  NP  2  2.97/3.00/---   3660.00  381.51   ---    ---   2792619  --- ---
  4711-1   user  pretrain  MO  2  2.97/3.00/2.40  3600.00  1000.00  64.21  0.40  7200000  8/8 1.9
  4711-0   user  pretrain  MO  2  2.97/3.00/2.40  20.00    500.00   64.21  0.40  20000    8/8 1.9
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that ended, on a site with a stand-in of eacct."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "eacct").write_text(f"#!/bin/sh\ntest \"$2\" = 4711 || exit 0\ncat <<'END'\n{TABLE}END\n")
    (tools / "eacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    made = RunFolder(tmp_path / "run")
    made.create()
    site = SiteConfig(gpu_model="h100")
    cluster = ClusterConfig("x", "slurm", "gpu", nodes=2, gpus_per_node=4, ear=True, site=site)
    made.config.write_text(yaml.safe_dump({"cluster": plain(cluster)}))
    made.update(state="done", job_ids=["4711", "4711"], world_size=8, seconds=3600.0, kwh=1.4)
    return made


def test_the_steps_of_a_job_are_summed(run: RunFolder) -> None:
    assert ear.joules(TABLE, "4711") == 7_220_000
    assert ear.read_back(run) == pytest.approx(7_220_000 / 3.6e6)
    record = run.read()
    assert record["energy_method"] == "EAR, whole nodes" and record["footprint"]["measured"]
    assert record["footprint"]["kwh"] == pytest.approx(1.19 * record["kwh"])
    assert record["footprint"]["device_hours"] == 8


def test_it_is_asked_once_and_only_of_what_has_ended(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.update(state="running")
    assert ear.read_back(run) is None
    run.update(state="done")
    first = ear.read_back(run)
    monkeypatch.setattr(ear, "measured", lambda job: pytest.fail("asked again"))
    assert ear.read_back(run) == first


@pytest.mark.parametrize("text", ["", "no such job", TABLE.replace("ENERGY(J)", "POWER(J)")])
def test_what_eacct_does_not_know_stays_as_it_was(text: str) -> None:
    assert ear.joules(text, "4711") is None


def test_a_part_of_the_jobs_is_no_whole(run: RunFolder) -> None:
    run.update(job_ids=["4711", "4712"])
    assert ear.read_back(run) is None and run.read()["kwh"] == 1.4


def test_without_eacct_nothing_happens(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert ear.read_back(run) is None
