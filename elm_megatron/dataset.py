"""The dataset a run reads, checked before anything starts. Torch-free."""

from __future__ import annotations

from pathlib import Path

from data_prep.config import CorpusConfig
from data_prep.errors import InputError
from data_prep.manifest import FILE, Manifest
from elm_megatron.compose import CONF


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
