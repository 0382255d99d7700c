"""What a launcher looks at before a tuning job starts: source, template, every data file. Torch-free."""

from __future__ import annotations

from collections import Counter

from conf.errors import InputError
from conf.schema.tune import FinetuneConfig
from elm_megatron.chat.read import data_file, dialogues, listing, preferences
from elm_megatron.chat.template import Template
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import ModelSource, base_for


def prepare(config: FinetuneConfig) -> ModelSource:
    """Everything a launcher can refuse before a job starts: the source, the template, the files as a whole.

    Raises:
        InputError: one of them is not there, or a file is not what its suffix says, or holds nothing.
    """
    source = adopt(config)
    Template.load(config.tune.template)
    look_at_files(config)
    return source


def adopt(config: FinetuneConfig) -> ModelSource:
    """Put the source's own model into the configuration and check it again.

    Raises:
        InputError: no such source, or the layout does not fit its model.
    """
    source = base_for(config.source, RunFolder(config.run.dir))
    config.model = source.model
    config.check()
    return source


def look_at_files(config: FinetuneConfig) -> Counter[str]:
    """Read every data file to its end; what they hold and what is skipped, counted.

    Raises:
        InputError: a file is not there, is not what its suffix says, or holds nothing.
    """
    counts: Counter[str] = Counter()
    sft, dpo = config.sft, config.dpo
    keyed = [(f"{config.stage}.files", name) for name in config.files]
    keyed += [("sft.valid_files", name) for name in (sft.valid_files if config.stage == "sft" else [])]
    for key, name in keyed:
        path, own = data_file(name, key), Counter[str]()
        if config.stage == "sft":
            skipped = Counter[str]()
            found = [len(dialogue.turns) for dialogue in dialogues(path, sft.sheet, skipped)]
            own |= {"turns": sum(found), **{f"skipped, {why}": n for why, n in skipped.items()}}
        else:
            found = [1 for _ in preferences(path, dpo.sheet, dpo.min_agreement, own)]
        if not found:
            raise InputError(f"{key}: {path} holds nothing to learn from ({listing(own) or 'it is empty'}).")
        counts["dialogues" if config.stage == "sft" else "pairs"] += len(found)
        counts += own
    return counts
