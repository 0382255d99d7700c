"""Training the SentencePiece tokenizer, and writing the same one as ``tokenizer.json``.

The settings are Llama's: BPE, text taken as it is (identity), byte fallback, a dummy prefix, extra spaces
kept, digits split. Line breaks are spelt as a byte. ``<pad>`` has its own id.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pyarrow.parquet as pq

from conf.errors import InputError
from conf.schema.preprocess import MEGABYTE, TokenizerConfig
from data_prep.documents import SCHEMA
from data_prep.encoder import HOSTILE
from data_prep.split import cut_for_validation
from data_prep.tokenizer import BOS_ID, EOS_ID, PAD_ID, SPACE, UNK_ID, Tokenizer

LINE_BYTES = 4000  # SentencePiece leaves out lines over 4,192 bytes unless told otherwise; ours are cut


def train(texts: Iterable[str], config: TokenizerConfig) -> bytes:
    """Train a tokenizer.

    Args:
        texts: documents; they are fed line by line, long lines cut between words.
        config: vocabulary size and character coverage.

    Returns:
        The bytes of ``tokenizer.model``.

    Raises:
        InputError: the text is too small, or has too many different characters, for the vocabulary.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        with redirect_stderr(io.StringIO()):
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=config.vocab_size,
                character_coverage=config.character_coverage,
                normalization_rule_name="identity",
                byte_fallback=True,
                add_dummy_prefix=True,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                split_digits=True,
                max_sentence_length=1 << 20,
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                pad_id=PAD_ID,
                num_threads=1,
                minloglevel=3,
            )
    except RuntimeError as error:
        raise InputError(_sentence(str(error), config)) from error
    return model.getvalue()


def _sentence(message: str, config: TokenizerConfig) -> str:
    size = f"tokenizer.vocab_size={config.vocab_size}"
    if found := re.search(r"Vocabulary size too high.*?<= *(\d+)", message):
        return (
            f"{size} is too large for this corpus, whose training works give at most {found[1]} pieces: "
            "add works or lower it."
        )
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message) or re.search(
        r"smaller than.*?(\d+)", message
    ):
        return (
            f"{size} is too small for this corpus, whose characters alone need {found[1]} pieces: raise it."
        )
    return f"no tokenizer of {size} can be trained on this corpus: {' '.join(message.split())}"


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The non-empty lines of texts, none longer than `LINE_BYTES`, cut at a space where there is one."""
    for text in texts:
        for line in text.split("\n"):
            start = 0  # what is left is copied only once it is short, for a line may have megabytes
            while (left := len(line) - start) > LINE_BYTES // 4 and (
                left > LINE_BYTES or len(line[start:].encode()) > LINE_BYTES
            ):
                end = start + LINE_BYTES // 4
                cut = line.rfind(" ", start + 1, end)
                cut = cut if cut > 0 else end
                yield line[start:cut]
                start = cut
            if line[start:].strip():
                yield line[start:]


def training_texts(path: Path, config: TokenizerConfig) -> Iterator[str]:
    """Training documents for the tokenizer: a seeded share of at most ``tokenizer.sample_mb``.

    Where no whole work of the share fits, the start of the corpus' first training work stands for it.
    """
    file = pq.ParquetFile(path)
    column = SCHEMA.get_field_index("text")
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    size = sum(group.column(column).total_uncompressed_size for group in groups)
    most = config.sample_mb * MEGABYTE
    share = most / max(size, 1)
    taken, first = 0, ""
    for identifier, text in _training_rows(file):
        first = first or text[:most]
        if not in_sample(identifier, config.seed, share):
            continue
        if taken + len(text) > most:
            break
        taken += len(text)
        yield text
    if not taken:
        yield first


def _training_rows(file: pq.ParquetFile) -> Iterator[tuple[str, str]]:
    """(id, text) of what is not validation."""
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["id", "split", "text"])
        for row in zip(table["id"], table["split"], table["text"], strict=True):
            identifier, split, text = (item.as_py() for item in row)
            if split != "valid":
                yield identifier, cut_for_validation(text)[0] if split == "both" else text


def in_sample(identifier: str, seed: int, share: float) -> bool:
    """Whether a work belongs to a seeded random share of the corpus."""
    digest = hashlib.blake2b(f"{seed}\x00{identifier}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def to_json(tokenizer: Tokenizer) -> str:
    """The same tokenizer in the format of Hugging Face's ``tokenizers``.

    A merge joins two pieces into a third; BPE prefers the third with the smallest id, since SentencePiece
    numbers pieces in the order in which training made them.

    Returns:
        The text of ``tokenizer.json``.
    """
    from tokenizers import AddedToken, decoders, models, normalizers
    from tokenizers import Tokenizer as Fast

    processor = tokenizer.processor
    vocab = {processor.id_to_piece(index): index for index in range(tokenizer.vocab_size)}
    special = [
        index for index in vocab.values() if processor.is_control(index) or processor.is_unknown(index)
    ]
    merges = []
    for piece, index in vocab.items():
        if index in special or processor.is_byte(index):
            continue
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += sorted(
            ((left, right) for left, right in halves if left in vocab and right in vocab),
            key=lambda pair: (vocab[pair[0]], vocab[pair[1]]),
        )
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    fast = Fast(model)
    fast.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    fast.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = [processor.id_to_piece(index) for index in special]
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return fast.to_str(pretty=True)


def json_differences(tokenizer: Tokenizer, text_json: str, texts: Iterable[str]) -> list[str]:
    """The texts, out of a sample and the hostile ones, on which ``tokenizer.json`` gives other ids."""
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_str(text_json)
    fast.encode_special_tokens = True  # "</s>" in a text is text
    return [text for text in [*HOSTILE, *texts] if fast.encode(text).ids != tokenizer.encode(text)]
