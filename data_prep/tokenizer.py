"""Reading a trained tokenizer. Training it is `train_tokenizer.py`; the fast bulk encoder is `encoder.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from conf.errors import InputError
from conf.schema.preprocess import TokenizerConfig

MODEL_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
UNK_ID, BOS_ID, EOS_ID, PAD_ID = 0, 1, 2, 3
SPACE = "\u2581"  # SentencePiece's sign for a space


class Tokenizer:
    """Text to token ids and back, with SentencePiece as the one authority on ids.

    Attributes:
        model: the bytes of ``tokenizer.model``.
        vocab_size: number of pieces, not padded.
        bos_id: id of ``<s>``.
        eos_id: id of ``</s>``, which closes every document of a dataset.
        pad_id: id of ``<pad>``, different from the others; -1 in a foreign tokenizer that has none.
        begin: ids before the first text of a sequence: none, but BOS for a foreign model that learnt so.
    """

    def __init__(self, model: bytes) -> None:
        """Read a SentencePiece model.

        Args:
            model: the bytes of ``tokenizer.model``.
        """
        from sentencepiece import SentencePieceProcessor

        self.model = model
        self.processor = SentencePieceProcessor(model_proto=model)
        self.vocab_size: int = self.processor.vocab_size()
        self.bos_id: int = self.processor.bos_id()
        self.eos_id: int = self.processor.eos_id()
        self.pad_id: int = self.processor.pad_id()
        self.begin: list[int] = []
        self.specials: frozenset[str] = frozenset()  # texts that a model from elsewhere reads as special ids

    @classmethod
    def load(cls, data_dir: Path) -> Tokenizer:
        """Load ``tokenizer.model`` of a dataset folder or of an exported model folder.

        Raises:
            InputError: the file is missing or is not a SentencePiece model.
        """
        path = Path(data_dir) / MODEL_FILE
        try:
            return cls(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist: the folder holds no tokenizer.") from error
        except RuntimeError as error:
            raise InputError(f"{path} is not a SentencePiece model.") from error

    @property
    def filler_id(self) -> int:
        """What fills rows: ``<pad>``, or ``</s>`` in a foreign tokenizer that has no such piece."""
        return self.pad_id if self.pad_id >= 0 else self.eos_id

    def encode(self, text: str) -> list[int]:
        """Ids of a text, content only: no BOS, EOS or PAD, even where the text spells ``</s>``."""
        return self.processor.encode(text)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The same ids, and where each is in the text: (start, stop) in characters.

        Of a character that is several ids, all but the last have no width.
        """
        found = self.processor.encode(text, return_type="offset_mapping")
        return found["ids"], found["offsets"]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; BOS, EOS and PAD give nothing, nor do ids that pad a vocabulary."""
        return self.processor.decode([int(i) for i in ids if i < self.vocab_size])


def given_path(config: TokenizerConfig) -> Path:
    """The file that `tokenizer.model` names.

    Raises:
        InputError: there is none.
    """
    path = Path(config.model or "").expanduser()
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"tokenizer.model={config.model}: {path} is no file.")
    return path


def given(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer that `tokenizer.model` names.

    Raises:
        InputError: it cannot be read, ends no document, or has another size than `tokenizer.vocab_size`.
    """
    path = given_path(config)
    try:
        tokenizer = Tokenizer(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise InputError(f"tokenizer.model={config.model}: {path} is not a SentencePiece model.") from error
    if tokenizer.vocab_size != config.vocab_size:
        raise InputError(
            f"tokenizer.vocab_size={config.vocab_size}: {path} has {tokenizer.vocab_size} pieces; set "
            f"tokenizer.vocab_size={tokenizer.vocab_size}."
        )
    if tokenizer.eos_id < 0:
        raise InputError(f"tokenizer.model={config.model}: {path} has no piece that ends a document (EOS).")
    return tokenizer
