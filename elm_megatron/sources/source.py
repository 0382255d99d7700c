"""What a name stands for: a run, a run's checkpoint, a Hugging Face folder, an export, a tuned adapter.

    source = resolve("base@200")
    source.model  source.step  source.weights  source.tokenizer  stages_of(source.folder)

Every verb that reads a model reads it through `ModelSource`. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from conf import typed
from conf.errors import InputError
from conf.names import label
from conf.schema.model import ModelConfig
from elm_megatron.model import hf_config
from elm_megatron.run.folder import RunFolder
from elm_megatron.run.steps import step_folder
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.places import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    TEMPLATE_FILE,
    TOKENIZER_FOLDER,
    adapter_facts,
    is_hf_folder,
    is_model,
    locate,
    model_folder,
    recorded_folder,
    run_config,
    split_step,
)
from elm_megatron.sources.tokenizer_files import TokenizerSource

if TYPE_CHECKING:
    from elm_megatron.sources.weights import Weights

PRECISION_DTYPE = {"fp32": "fp32", "bf16": "bf16", "fp8": "bf16"}


@dataclass(frozen=True)
class ModelSource:
    """A model that can be read.

    Attributes:
        name: as it was given.
        folder: of the run or of the Hugging Face model.
        run: the run; None for a Hugging Face folder.
        step: the checkpoint asked for; None is the newest.
        base: of a finetune run: the model its adapter belongs to. With a step, the adapter is the one in that
            checkpoint of the run.
        adapter: of a finetune run: its PEFT folder.
        merged: a PEFT folder that was asked for on top.
        data_dir: another folder of the dataset than the one the run names.
    """

    name: str
    folder: Path
    run: RunFolder | None
    step: int | None = None
    base: ModelSource | None = None
    adapter: Path | None = None
    merged: Path | None = None
    data_dir: str | None = None

    @property
    def stored(self) -> ModelSource:
        """The model whose weights are stored whole: this one, or the base of a finetune run."""
        return self.base.stored if self.base else self

    def at(self, step: int) -> ModelSource:
        """The same run at another step."""
        return replace(self, step=step)

    @cached_property
    def model(self) -> ModelConfig:
        """Its sizes.

        Raises:
            InputError: it is not a Llama as this suite builds it.
        """
        if self.base:
            return self.base.model
        return run_model(self.run) if self.run else hf_config.model_config(self.folder, self.folder.name)

    @property
    def manifest_sha256(self) -> str | None:
        """The manifest of the dataset a run, or the base of a finetune run, was trained on, where known."""
        if self.base:
            return self.base.manifest_sha256
        return self.run.read().get("manifest_sha256") if self.run else None

    @cached_property
    def weights(self) -> Weights:
        """The weights, adapters merged; opened and verified when first asked for.

        Raises:
            InputError: there are none, they are damaged, or an adapter belongs to another base.
        """
        from elm_megatron.checkpoint.manifest import Checkpoint
        from elm_megatron.sources import adapters
        from elm_megatron.sources.weights import FolderWeights, RunWeights

        if self.base and self.adapter:
            weights: Weights = adapters.merge(self.base, self.adapter, search=self.base.step is None)
        elif self.base and self.run:
            checkpoint = Checkpoint.open(step_folder(self.run, self.step))
            checkpoint.verify()
            weights = adapters.MergedWeights(self.base.weights, adapters.of_checkpoint(checkpoint))
        elif self.run:
            weights = RunWeights(self.run, self.step, self.model)
        else:
            weights = FolderWeights(self.folder, self.model)
        if self.merged is None:
            return weights
        return adapters.merge(replace(self, merged=None), self.merged)

    @cached_property
    def tokenizer(self) -> TokenizerSource:
        """The tokenizer it was trained with, and the prompts it was tuned with.

        Raises:
            InputError: it cannot be found, or has more pieces than the model.
        """
        found = self._own_tokenizer()
        if self.run and found.info.vocab_size > self.model.vocab_size:
            raise InputError(
                f"source={self.name}: the tokenizer has {found.info.vocab_size} pieces, the model's "
                f"vocab_size is {self.model.vocab_size}."
            )
        if self.merged is None:
            return found
        return replace(found, template=_template_of(self.merged) or found.template, tuned=True)

    def _own_tokenizer(self) -> TokenizerSource:
        if self.run is None:
            return tokenizer_files.of_folder(self.folder)
        if self.base is None:
            return tokenizer_files.of_run(self.run, self.data_dir)
        found = self.base.tokenizer
        kept = self.run.path / ADAPTER_FOLDER / TEMPLATE_FILE
        named = (run_config(self.run).get("tune") or {}).get("template", found.template)
        return replace(found, template=str(kept) if kept.is_file() else named, tuned=True)

    @property
    def dtype(self) -> str:
        """The type a run computed in, or a Hugging Face folder's or an import's own: fp32, bf16 or fp16."""
        settings = [self.folder, self.folder / TOKENIZER_FOLDER]
        folder = next((f for f in settings if is_hf_folder(f)), None)
        if folder is not None:
            stored = hf_config.read_config(folder)
            wanted = stored.get("dtype") or stored.get("torch_dtype")
            return next((k for k, v in hf_config.TORCH_DTYPES.items() if v == wanted), "fp32")
        values = run_config(RunFolder(self.folder))
        precision = (values.get("train") or values.get("tune") or {}).get("precision", "fp32")
        return PRECISION_DTYPE.get(precision, "fp32")


def resolve(
    source: str,
    step: int | None = None,
    adapter: str | None = None,
    data_dir: str | None = None,
    key: str = "source",
) -> ModelSource:
    """Find what a source names.

    Args:
        source: a run's name or folder, @step behind it for an older checkpoint, or a Hugging Face folder.
        step: the same as @step.
        adapter: a PEFT folder or a finetune run whose adapter is merged on top.
        data_dir: another folder of the dataset than the one the run names.
        key: the setting that names it, for refusals.

    Raises:
        InputError: there is no such model, or a finetune run without an adapter yet.
    """
    folder = locate(source, key)
    at = None if is_model(Path(source).expanduser()) else split_step(source)[1]
    step = at if step is None else step
    exported = model_folder(folder, source)
    if exported is not None:
        if step is not None:
            raise InputError(f"step={step}: {key}={source} is a Hugging Face folder; use null.")
        found = ModelSource(source, exported, None)
    else:
        found = _of_run(source, RunFolder(folder), step, data_dir)
    return found if adapter is None else replace(found, merged=locate_adapter(adapter))


def _of_run(source: str, run: RunFolder, step: int | None, data_dir: str | None) -> ModelSource:
    config = run_config(run) if run.config.is_file() else {}
    if "tune" not in config:
        return ModelSource(source, run.path, run, step, data_dir=data_dir)
    if step is not None:
        raise InputError(
            f"step={step}: {run.path.name} is a finetune run, whose finished adapter is read; use null."
        )
    base = replace(base_of(run, config), data_dir=data_dir)
    return ModelSource(source, run.path, run, None, base, _adapter_of(run), data_dir=data_dir)


def at_checkpoint(run: RunFolder, step: int) -> ModelSource:
    """The model that a run, also one that tunes, has made by a step, while the run goes on.

    Raises:
        InputError: the base of a finetune run is gone.
    """
    config, name = run_config(run), f"{run.path}@{step}"
    base = base_of(run, config) if "tune" in config else None
    return ModelSource(name, run.path, run, step, base)


def base_of(run: RunFolder, config: dict | None = None) -> ModelSource:
    """The model that a finetune run's adapter belongs to, at the step it was tuned on.

    A run tuned on from another adapter stands on that adapter's base.

    Raises:
        InputError: the model is gone.
    """
    config = config or run_config(run)
    given, step = split_step(str(config["source"]))
    record = run.read()
    folder = find_base(run, config, record)
    if folder is None:
        raise InputError(
            f"source={run.path.name}: its base {given} is gone (looked from {run.path} and {Path.cwd()}); "
            "move it back, or put a link to it where it was."
        )
    found = resolve(str(folder)).stored
    if found.run and found.step is None:
        found = replace(found, step=record.get("base_step") if step is None else step)
    return replace(found, name=given)


def base_for(source: str, run: RunFolder) -> ModelSource:
    """What a tuning run is trained on: what it names, and once it has begun, at the step it began with.

    Args:
        source: the configuration's `source`; a finetune run stands for its base and its adapter.
        run: the tuning run.

    Raises:
        InputError: there is no such model; the sentence holds a command that makes one.
    """
    try:
        found = resolve(source)
    except InputError as error:
        name = Path(split_step(source)[0]).name
        raise InputError(f"{error} Make one with: python launch/pretrain.py run.name={name}") from error
    begun = run.read().get("base_step")
    if found.run is None or found.base is not None or found.step is not None or begun is None:
        return found
    kept = any(found.run.checkpoints.glob(f"step-{begun:08d}/manifest.json"))
    return found.at(begun) if kept else found


def beginning(source: str, tokenizer_sha256: str) -> ModelSource:
    """The run that `train.init_from` names; its tokenizer must be the dataset's, where that can be told.

    Args:
        source: a run's name or folder, with @step behind it for an older checkpoint.
        tokenizer_sha256: of the dataset's tokenizer.

    Raises:
        InputError: it is no run that holds whole weights, or its ids are other pieces of text.
    """
    key = "train.init_from"
    found = resolve(source, key=key)
    if found.run is None:
        raise InputError(
            f"{key}={source}: is a Hugging Face folder; import it first with "
            f"`python launch/import_hf.py source={source}` and give that run."
        )
    if found.base is not None:
        raise InputError(
            f"{key}={source}: is a finetune run, which holds an adapter alone; export it, import that with "
            "launch/import_hf.py, and give the imported run."
        )
    try:
        before = found.tokenizer.info.sha256
    except InputError:
        return found  # its dataset is gone
    if before != tokenizer_sha256:
        raise InputError(
            f"{key}={source}: was trained with another tokenizer ({before[:12]}…) than that of "
            f"data.dir ({tokenizer_sha256[:12]}…), whose ids mean other pieces; build one with "
            "tokenizer.model."
        )
    return found


def find_base(run: RunFolder, config: dict, record: dict) -> Path | None:
    """The folder of a finetune run's source, where it is now."""
    given = split_step(str(config["source"]))[0]
    wanted = record.get("manifest_sha256")

    def fits(folder: Path) -> bool:
        if not is_model(folder):
            return False
        held = None if is_hf_folder(folder) else RunFolder(folder).read().get("manifest_sha256")
        return None in (wanted, held) or wanted == held

    found = recorded_folder(run, given, fits, Path(given).name)
    return found or recorded_folder(run, given, is_model)


def _adapter_of(run: RunFolder) -> Path:
    adapter = run.path / ADAPTER_FOLDER
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise InputError(
            f"source={run.path.name}: the finetune run is not finished, it holds no {adapter.name}/."
        )
    return adapter


def locate_adapter(name: str) -> Path:
    """The PEFT folder a name stands for: a folder, a finetune run's folder, or a run's name below runs/.

    Raises:
        InputError: there is none.
    """
    given = Path(name).expanduser()
    for folder in (given, given / ADAPTER_FOLDER, Path("runs") / name / ADAPTER_FOLDER):
        if (folder / ADAPTER_CONFIG).is_file():
            return folder.absolute()
    raise InputError(f"adapter={name}: neither a PEFT folder nor a finished finetune run.")


def _template_of(adapter: Path) -> str | None:
    """The prompt template an adapter was tuned with, a name or a path, where it is known."""
    if (adapter / TEMPLATE_FILE).is_file():
        return str(adapter / TEMPLATE_FILE)
    return adapter_facts(adapter).get("template")


def run_model(run: RunFolder) -> ModelConfig:
    """The model of a run.

    Raises:
        InputError: config.yaml holds none.
    """
    values = run_config(run).get("model")
    if values is None:
        raise InputError(f"{run.path} holds no model: {run.config.name} has no key model.")
    model = typed.build(ModelConfig, values, "model")
    model.check()
    return model


def parameters_of(source: str) -> int:
    """Parameters of the model a source names, the vocabulary's padding included.

    Raises:
        InputError: there is no such source.
    """
    folder = locate(source)
    exported = model_folder(folder, source)
    model = hf_config.model_config(exported, exported.name) if exported else run_model(RunFolder(folder))
    return model.parameters()


def side_by_side(sources: Sequence[str]) -> dict[str, str]:
    """{label: source} of several models; the sources as given tell those apart whose labels are the same.

    Raises:
        InputError: a source does not exist, or two of them are one folder.
    """
    folders = [model_folder(locate(source), source) or locate(source) for source in sources]
    places = [(folder.resolve(), split_step(s)[1]) for folder, s in zip(folders, sources, strict=True)]
    for number, place in enumerate(places):
        if place in places[:number]:
            first = sources[places.index(place)]
            raise InputError(f"source={first} and source={sources[number]} are the same model, {place[0]}.")
    labels = [label(folder) for folder in folders]
    names = [s if labels.count(name) > 1 else name for s, name in zip(sources, labels, strict=True)]
    return dict(zip(names, sources, strict=True))
