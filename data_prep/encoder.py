"""Encoding a corpus in bulk: SentencePiece asked once per distinct word, the answers joined as bytes.

With Llama's settings (BPE, identity normalisation, dummy prefix, byte fallback) no piece reaches across the
start of a word: a piece holds U+2581, which stands for a space, only in front, and never a line break. BPE
merges nothing that is not a piece, so the ids of a text are the ids of its words one after another. Words
repeat, which makes the memory of answers the fast path; `trusted` proves the condition on the vocabulary and
compares with SentencePiece on a sample before it is used, and `PlainEncoder` is the fall-back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from data_prep.tokenizer import Tokenizer

SPACE = "\u2581"
UNIT = re.compile(r"\n[^ \n]*| *[^ \n]+| +")
LONE_SPACE = re.compile(r"(?<=[^ \n]) (?=[^ \n])")
SEGMENT = 1 << 20  # characters encoded at once, which bounds the list of words
LONGEST = 256  # characters of a word that is worth remembering
CAPACITY = 1 << 18  # words per generation; two generations take at most some 120 MB
HOSTILE = (
    "", " ", "  ", "a", " a", "a ", "  a  b ", "\n", "\n\n", " \n", "\n ", "a\nb", "a \n b", "a\n\n  b\n",
    "\t a\t", "</s>", "<s> x </s>", "<pad><unk>", "3.14159 en 2024", "één façade naïef", "e\u0301", "\\n",
    "\u00a0x\u00a0", "日本語 テキスト", "👩\u200d👧 🇳🇱", "a\u200bb", "\u202eabc", "ﬁne", "x" * 3000, "1" * 50,
    "\x07\x1b[31m", "\uffff\U0010ffff",
)  # fmt: skip


class PlainEncoder:
    """SentencePiece itself, document by document."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        """Encode with a tokenizer into ids of a type."""
        self.tokenizer, self.dtype = tokenizer, dtype

    def encode(self, text: str) -> bytes:
        """The ids of a text as the bytes of an array of `dtype`, without BOS and EOS."""
        return np.array(self.tokenizer.encode(text), self.dtype).tobytes()


class WordEncoder(PlainEncoder):
    """The same ids from a memory of words.

    The memory has two generations: when the young one is full it becomes the old one, and words still in use
    come back from there. So its size is bounded and a change of language does not spoil it.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype, capacity: int = CAPACITY) -> None:
        """Start with an empty memory of at most 2 × `capacity` words."""
        super().__init__(tokenizer, dtype)
        self.capacity = capacity
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}
        self._space = tokenizer.processor.piece_to_id(SPACE)

    def encode(self, text: str) -> bytes:
        """The ids of a text as bytes; see `PlainEncoder.encode`."""
        if SPACE in text:
            return super().encode(text)
        if len(text) <= SEGMENT:
            return self._encode_segment(text)
        return b"".join(self._encode_segment(part) for part in segments(text))

    def _encode_segment(self, text: str) -> bytes:
        if not text or text[0] in " \n" or text[-1] == " " or "  " in text or " \n" in text:
            units = UNIT.findall(f" {text}") if text else []
        else:
            # The usual case, and three times as fast: every unit but "\nword" starts after one space.
            units = text.replace("\n", " \n").split(" ")
        try:
            return b"".join(map(self._young.__getitem__, units))
        except KeyError:
            if not self._learn(set(units)):
                return super().encode(text)
            return b"".join(map(self._young.__getitem__, units))

    def _learn(self, units: set[str]) -> bool:
        """Bring all units into the young generation, or none when one of them is too long to be kept."""
        missing = units.difference(self._young)
        if max(map(len, missing)) > LONGEST:
            return False
        if len(self._young) + len(missing) > self.capacity:
            self._old, self._young, missing = self._young, {}, units
        old = self._old
        self._young.update((unit, old[unit]) for unit in missing if unit in old)
        new = [unit for unit in missing if unit not in old]
        # One leading space is the dummy prefix, which SentencePiece brings itself; after a line break there
        # is none, so the one it brings goes off again. For an empty text it brings none.
        pieces = self.tokenizer.processor.encode([unit[unit[0] == " " :] for unit in new])
        for unit, ids in zip(new, pieces, strict=True):
            if unit[0] == "\n":
                ids = ids[1:]
            self._young[unit] = np.array(ids if unit != " " else [self._space], self.dtype).tobytes()
        return True


def segments(text: str) -> Iterator[str]:
    """Cut a long text at single spaces between words; each cut space returns as a dummy prefix."""
    start = 0
    while len(text) - start > SEGMENT:
        cut = LONE_SPACE.search(text, start + SEGMENT)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.end()
    yield text[start:]


def separable(tokenizer: Tokenizer) -> bool:
    """Whether no piece of the vocabulary reaches across the start of a word or a line."""
    processor = tokenizer.processor
    first = processor.piece_to_id(SPACE)
    if processor.encode("\n")[:1] != [first] or len(processor.encode("\n")) != 2:
        return False
    for index in range(tokenizer.vocab_size):
        if processor.is_control(index) or processor.is_byte(index) or processor.is_unknown(index):
            continue
        piece = processor.id_to_piece(index)
        if "\n" in piece or " " in piece or SPACE in piece.lstrip(SPACE):
            return False
    return True


def trusted(tokenizer: Tokenizer, dtype: np.dtype, texts: Iterable[str]) -> tuple[bool, str]:
    """Decide whether `WordEncoder` may be used.

    Args:
        tokenizer: the tokenizer of the build.
        dtype: type of the ids.
        texts: a sample of the corpus at hand; `HOSTILE` is added.

    Returns:
        (True, "") or (False, the reason in words).
    """
    if not separable(tokenizer):
        return False, "a piece of the tokenizer reaches across words"
    plain, fast = PlainEncoder(tokenizer, dtype), WordEncoder(tokenizer, dtype)
    for text in [*HOSTILE, *texts]:
        if plain.encode(text) != fast.encode(text):
            return False, "the fast encoder and SentencePiece disagree on a sample"
    return True, ""
