"""The dataset a run reads, checked before anything starts. Torch-free."""

from __future__ import annotations

from pathlib import Path

from conf.errors import InputError, require
from conf.names import CONF
from conf.schema.data import TrainingData
from conf.schema.preprocess import CorpusConfig
from data_prep.manifest import FILE, Manifest


def open_dataset(
    data_dir: str, corpus: CorpusConfig, vocab_size: int, seq_length: int, trained: bool = True
) -> Manifest:
    """Load and check the manifest of a dataset that a model is about to be trained on.

    Args:
        data_dir: `data.dir`.
        corpus: what it was made from, for the command in the refusal.
        vocab_size: `model.vocab_size`.
        seq_length: tokens of a sample.
        trained: its training split is used; beside a blend it is not.

    Raises:
        InputError: there is none (the sentence holds the command that makes it), its files have other sizes
            than the manifest says, its tokenizer has a larger vocabulary, or it is shorter than one sequence.
    """
    folder = Path(data_dir)
    if not (folder / FILE).exists():
        raise InputError(
            f"data.dir={data_dir}: there is no dataset; make it with: {preprocess_command(data_dir, corpus)}"
        )
    manifest = Manifest.load(folder)
    if manifest.stale:
        command = preprocess_command(data_dir, corpus)
        raise InputError(f"data.dir={data_dir}: {manifest.stale}; build it again with: {command}")
    manifest.check_files()
    if manifest.tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"model.vocab_size={vocab_size}: the tokenizer of {data_dir} has {manifest.tokenizer.vocab_size} "
            f"pieces; set tokenizer.vocab_size={manifest.tokenizer.vocab_size}."
        )
    tokens = manifest.splits["train"].tokens
    if trained and tokens <= seq_length:
        raise InputError(
            f"data.dir={data_dir}: its training split holds {tokens} tokens, fewer than one sequence of "
            f"train.seq_length={seq_length} + 1; give a larger corpus or a shorter train.seq_length."
        )
    return manifest


def preprocess_command(data_dir: str, corpus: CorpusConfig) -> str:
    """The command that makes a dataset, for people to paste."""
    known = (CONF / "corpus" / f"{corpus.name}.yaml").exists()
    words = [
        "python launch/preprocess.py",
        f"corpus={corpus.name}" if known else f"corpus.path={corpus.path}",
    ]
    if Path(data_dir) != Path("data") / corpus.name:
        words.append(f"data.dir={data_dir}")
    return " ".join(words)


def open_parts(data: TrainingData, manifest: Manifest, seq_length: int) -> list[Manifest]:
    """The datasets to train on, checked: those of the blend, or the one dataset alone.

    Args:
        manifest: of `data.dir`, whose tokenizer all must have.
        seq_length: tokens of a sample.

    Raises:
        InputError: a part does not exist, is damaged or too small, or has another tokenizer.
    """
    if not data.blend:
        return [manifest]
    parts = []
    for i, part in enumerate(data.blend):
        opened = Manifest.load(Path(part.dir))
        key = f"data.blend[{i}].dir={part.dir}"
        if opened.stale:
            raise InputError(f"{key}: {opened.stale}; build it again.")
        opened.check_files()
        if opened.tokenizer.sha256 != manifest.tokenizer.sha256:
            raise InputError(
                f"{key}: was made with another tokenizer (sha256 {opened.tokenizer.sha256[:12]}…) than "
                f"data.dir={data.dir} ({manifest.tokenizer.sha256[:12]}…); give datasets of one tokenizer."
            )
        tokens = opened.splits["train"].tokens
        require(
            tokens > seq_length,
            f"{key}: its training split holds {tokens} tokens, fewer than one sequence of "
            f"train.seq_length={seq_length} + 1.",
        )
        parts.append(opened)
    return parts
