"""The preprocess stage as a job: what a launcher hands to submitit, here or on a cluster."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from conf.errors import InputError, disk_full
from conf.schema.preprocess import PreprocessConfig
from data_prep.comm import world
from data_prep.environment import scrubbed
from data_prep.journal import RECORDS_FILE
from data_prep.progress import Progress, show
from data_prep.settings import from_mapping, to_mapping

EXIT_INPUT = 2


@dataclass(frozen=True)
class Preprocess:
    """Harvest, clean, tokenize and binarize one corpus.

    Called as ``job(world)`` in every task. In a world of several tasks (``srun``) these are the MPI ranks. In
    a world of one task it starts ``mpiexec -n preprocess.ranks`` itself, since local tasks know no MPI.

    Attributes:
        config: the settings.
        follow_up: called with the ids of works that were taken down, or that a build left out because they
            opted out, when that is done.
    """

    config: PreprocessConfig
    follow_up: Callable[[PreprocessConfig, list[str]], object] | None = None

    def __call__(self, world: object = None) -> str:
        """Build and return "done".

        Args:
            world: has ``world_size``; None stands for a world of one.

        Raises:
            InputError: wrong settings or inputs.
            RuntimeError: a rank died.
        """
        os.umask(0o077)
        if self.config.remove is not None:
            if getattr(world, "rank", 0) == 0:
                self._after(remove(self.config))
            return "done"
        before = opted_out(self.config)
        tasks = getattr(world, "world_size", 1)
        ranks = self.config.preprocess.ranks
        if tasks > 1:
            run(self.config, tasks)
        elif ranks > 1:
            self._mpiexec(ranks)
        else:
            run(self.config, 1)
        if getattr(world, "rank", 0) == 0:
            after = opted_out(self.config)
            self._after([name for name, builds in after.items() if builds - before.get(name, set())])
        return "done"

    def _after(self, ids: list[str]) -> None:
        if ids and self.follow_up is not None:
            self.follow_up(self.config, ids)

    def finished(self) -> bool:
        """Whether the dataset is there and up to date, so that no job need be queued."""
        from data_prep.build import finished

        return self.config.remove is None and finished(self.config) is not None

    def progress(self) -> int:
        """Bytes of what stands so far: a job that is started again and again has to add some."""
        made = [path for path in self.config.data_dir().rglob("*") if path.is_file()]
        harvested = self.config.corpus.folder() / RECORDS_FILE
        return sum(path.stat().st_size for path in [*made, harvested] if path.exists())

    def _mpiexec(self, ranks: int) -> None:
        """Run the ranks under mpiexec; their output is this process's output."""
        self.config.check()
        mpiexec = find_mpiexec()
        with tempfile.TemporaryDirectory(prefix="elm-preprocess-") as scratch:
            settings, sentence = Path(scratch) / "settings.json", Path(scratch) / "error"
            settings.write_text(json.dumps(to_mapping(self.config)), encoding="utf-8")
            command = [
                mpiexec,
                "-n",
                str(ranks),
                sys.executable,
                "-m",
                "data_prep.job",
                "--ranks",
                str(ranks),
            ]
            command += ["--error", str(sentence), str(settings)]
            status = subprocess.run(command, env=_own_world(), check=False).returncode
            if sentence.exists():
                raise InputError(sentence.read_text(encoding="utf-8"))
        if status != 0:
            raise RuntimeError(
                f"a rank of the build ended with status {status}; the same command continues it"
            )


def find_mpiexec() -> str:
    """The mpiexec beside this Python (the ``mpich`` wheel), or the one on PATH.

    Raises:
        InputError: there is none.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise InputError("preprocess.ranks above 1 needs mpiexec: pip install mpich mpi4py, or set it to 1.")
    return found


def _own_world() -> dict[str, str]:
    """The environment without the marks of a surrounding MPI or Slurm step, which new ranks would join."""
    kept = scrubbed()
    # Its own checkout must be importable in the ranks, wherever the caller stands.
    root = str(Path(__file__).resolve().parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return kept


def opted_out(config: PreprocessConfig) -> dict[str, set[str]]:
    """The builds that may hold a work, by the ids of the works that opted out of a dataset."""
    from data_prep.opt_out import read_record

    return {entry["id"]: set(entry["manifests"]) for entry in read_record(config.data_dir())}


def remove(config: PreprocessConfig) -> list[str]:
    """Take works down and print what that touched; returns their ids."""
    from data_prep.takedown import removals, take_down

    config.check()
    ids = removals(config)
    for identifier in ids:
        removal = take_down(replace(config, remove=identifier))
        for line in removal.lines():
            print(line)
        for folder in removal.datasets:
            publish(folder, config)
    return ids


def publish(folder: Path, config: PreprocessConfig) -> None:
    """Bring the documents beside a dataset up to date and say what changed."""
    from data_prep.bundle import write

    changed, missing = write.write(folder, config.institution), config.institution.missing()
    if changed:
        more = f"; the institution has yet to say: {', '.join(missing)}" if missing else ""
        print(f"{folder}: {len(changed)} documents to publish are written{more}", flush=True)


def run(config: PreprocessConfig, ranks: int, report: Callable[[str], object] | None = None) -> None:
    """Build in this process as one of `ranks` ranks, and print the tables on the first.

    Args:
        config: the settings.
        ranks: size of the world.
        report: given the sentence about a full disk, which only one rank may have met, before the world ends.
    """
    from data_prep.build import build

    comm = world(ranks)
    try:
        manifest = build(config, comm, Progress(comm.rank == 0))
        if comm.rank == 0:
            show(manifest)
            publish(config.data_dir(), config)
    except InputError:
        raise
    except OSError as error:
        if not disk_full(error):
            comm.abort()
            raise
        sentence = (
            f"data.dir={config.data_dir()}: the disk is full; make room and give the same command again."
        )
        if report is not None:
            report(sentence)
        comm.abort()
        raise InputError(sentence) from error
    except BaseException:
        comm.abort()
        raise


def main() -> int:
    """One rank under mpiexec or srun: ``python -m data_prep.job --ranks N settings.json``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--ranks", type=int, default=1, help="ranks of the world this process is in")
    parser.add_argument(
        "--error", type=Path, help="file for the sentence about wrong input, instead of stderr"
    )
    parser.add_argument("settings", type=Path, help="JSON of the keys of PreprocessConfig")
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        report = partial(arguments.error.write_text, encoding="utf-8") if arguments.error else None
        run(from_mapping(json.loads(arguments.settings.read_text(encoding="utf-8"))), arguments.ranks, report)
    except InputError as error:
        if arguments.error is None:
            print(error, file=sys.stderr)
        else:
            arguments.error.write_text(str(error), encoding="utf-8")  # every rank writes the same sentence
        return EXIT_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
