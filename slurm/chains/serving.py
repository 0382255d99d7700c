"""The stages of `launch/serve.py`: an export of each model that its engine cannot read, then the server."""

from __future__ import annotations

from pathlib import Path

from conf.errors import InputError
from conf.names import MODEL_FOLDER, folder_name, label
from conf.schema.hf import ExportConfig
from conf.schema.run import RunConfig
from conf.schema.serve import ServeConfig
from elm_megatron.hf.job import Export
from elm_megatron.run.folder import RunFolder
from elm_megatron.serve.engines import Served
from elm_megatron.serve.job import Serve
from elm_megatron.serve.status import STATUS_FILE
from elm_megatron.sources.places import GGUF_FILE, locate, model_folder
from slurm.chains import chain
from slurm.jobs.successor import hand_in

ENGINES = {"llamacpp": "llama.cpp, on the CPU", "vllm": "vLLM, on a GPU"}


def stages(config: ServeConfig, sources: dict[str, Path] | None = None) -> list[chain.Stage]:
    """The links: exports that are missing, and the server.

    Args:
        config: checked.
        sources: folders of sources that are still to be made by stages before these; others must be there.

    Raises:
        InputError: there is no such source.
    """
    links: list[chain.Stage] = []
    served = []
    for source in config.sources:
        folder = (sources or {}).get(source) or locate(source)
        path = _readable(folder, source, config.engine)
        if path is None:
            stage = _export(config, source, folder)
            links.append(stage)
            path = Path(stage.output)
        served.append(Served(_name(folder), str(folder), str(path)))
    names = [one.name for one in served]
    if len(set(names)) < len(names):
        raise InputError(
            f"source={config.sources}: two of them have one name, {', '.join(names)}; rename a folder."
        )
    on_slurm = config.cluster.executor == "slurm"
    job = Serve(config, tuple(served), hand_in if on_slurm else None)
    run = RunFolder(config.run.dir)
    links.append(
        chain.Stage(
            "serve", config, job, 1, ", ".join(names), str(run.path), run.path / STATUS_FILE, resumes=False,
            sources=tuple(stage.run for stage in links),
        )
    )  # fmt: skip
    return links


def _name(folder: Path) -> str:
    """What requests call a model: the name of its run or of its folder."""
    return folder_name(label(folder))


def _readable(folder: Path, source: str, engine: str) -> Path | None:
    """What an engine reads of a source as it is; None where it must be exported first."""
    if engine == "llamacpp":
        return folder / GGUF_FILE if (folder / GGUF_FILE).is_file() else None
    return model_folder(folder, source)


def _export(config: ServeConfig, source: str, folder: Path) -> chain.Stage:
    """The export that makes a source readable for the engine."""
    form = "gguf" if config.engine == "llamacpp" else "hf"
    name = (
        f"{config.run.name}-{form}"
        if len(config.sources) == 1
        else f"{config.run.name}-{_name(folder)}-{form}"
    )
    run = RunConfig(name, str(Path(config.run.dir).with_name(name)))
    export = ExportConfig(
        run=run,
        source=str(folder) if "@" not in source else source,
        format=form,
        dtype=config.dtype,
        cluster=config.cluster,
    )
    export.check()
    output = Path(run.dir) / (GGUF_FILE if form == "gguf" else MODEL_FOLDER)
    made, read = RunFolder(run.dir), RunFolder(folder)
    return chain.Stage(
        "export", export, Export(export), 1, source, str(output), output, resumes=False,
        finished=lambda: output.exists() and _is_newer(made, read),
    )  # fmt: skip


def _is_newer(made: RunFolder, read: RunFolder) -> bool:
    """Whether an export was made after what it reads was last written."""
    weights = read.path / "config.json"
    if weights.is_file():
        return (
            made.read().get("state") == "done" and made.read().get("submitted", 0.0) > weights.stat().st_mtime
        )
    return chain.done_since(made, read)
