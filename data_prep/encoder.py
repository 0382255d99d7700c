"""Encoding a corpus in bulk: the tokenizer is asked once per distinct word, the rest is look-up in numpy.

With Llama's settings (BPE, identity normalisation, dummy prefix, byte fallback) no piece reaches across the
start of a word: a piece holds U+2581, which stands for a space, only in front, and never a line break. BPE
merges nothing that is not a piece, so the ids of a text are the ids of its units one after another, where a
unit starts at a line break or at the first of several spaces. Units repeat, so their ids are remembered.

`choose` proves the condition on the vocabulary and compares with SentencePiece on a sample before this is
used; `PlainEncoder` is the fall-back. New units are put to the tokenizer many at a time, through the package
kitoken where it agrees with SentencePiece on the same sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from data_prep.tokenizer import SPACE, Tokenizer
from data_prep.wordtable import WordTable

END = b"\x01"  # closes a document inside a buffer; cleaned text has no control characters
BLOCK = 1 << 20  # bytes looked up at once; the tables hold all units that fit into it
BATCH = 1024  # new units put to the tokenizer at once
POOL = 1 << 24  # ids remembered at most, before everything is forgotten and learnt again
UNIT_START = re.compile(rb"[\n\x01]|(?<! ) ")
TABLES = ((1, 19), (2, 19), (4, 17), (8, 16))  # units of up to 8, 16, 32, 64 bytes: 31 MB together
HOSTILE = (
    "", " ", "  ", "a", " a", "a ", "  a  b ", "\n", "\n\n", " \n", "\n ", "a\nb", "a \n b", "a\n\n  b\n",
    "\t a\t", "</s>", "<s> x </s>", "<pad><unk>", "3.14159 en 2024", "één façade naïef", "e\u0301", "\\n",
    "\u00a0x\u00a0", "日本語 テキスト", "👩\u200d👧 🇳🇱", "a\u200bb", "\u202eabc", "ﬁne", "x" * 3000, "1" * 50,
    "\x07\x1b[31m", "\uffff\U0010ffff",
)  # fmt: skip

Encode = Callable[[str], list[int]]


class PlainEncoder:
    """SentencePiece itself, document by document."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        """Encode with a tokenizer into ids of a type."""
        self.tokenizer, self.dtype = tokenizer, dtype

    def encode(self, texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Encode documents, each closed by EOS.

        Args:
            texts: UTF-8.

        Returns:
            All ids one after another, and int32[N] lengths.
        """
        ids = [
            np.array([*self.tokenizer.encode(text.decode()), self.tokenizer.eos_id], self.dtype)
            for text in texts
        ]
        lengths = np.array([len(item) for item in ids], np.int32)
        return np.concatenate([np.zeros(0, self.dtype), *ids]), lengths


class WordEncoder(PlainEncoder):
    """The same ids from a memory of units, at some ten times the speed."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype, ask: Encode | None = None) -> None:
        """Start with an empty memory.

        Args:
            tokenizer: the tokenizer.
            dtype: type of the ids.
            ask: encodes a text as `tokenizer.encode` does; that by default.
        """
        super().__init__(tokenizer, dtype)
        self._ask = ask or tokenizer.encode
        self._line_break = tokenizer.encode("\n")[1]
        self._tables = [WordTable(words, bits) for words, bits in TABLES]
        self._pool = np.zeros(POOL, dtype)
        self._forget()

    def encode(self, texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Encode documents, each closed by EOS; see `PlainEncoder.encode`."""
        # The space in front of a text is the dummy prefix, which an empty text does not get.
        buffer = b"".join(part for text in texts for part in ((b" " if text else b""), text, END))
        if buffer.count(END) != len(texts) or b"\0" in buffer or SPACE.encode() in buffer:
            if len(texts) == 1:
                return super().encode(texts)
            each = [self.encode([text]) for text in texts]
            return np.concatenate([item[0] for item in each]), np.concatenate([item[1] for item in each])
        ids, lengths, open_tokens, start = [], [], 0, 0
        data = np.frombuffer(buffer + bytes(64), np.uint8)
        windows = np.ndarray((len(buffer) + 57,), "<u8", data, strides=(1,))
        while start < len(buffer):
            end = _cut(buffer, start)
            if 4 * (end - start) >= POOL:  # megabytes without a space
                return super().encode(texts)
            if self._used + 4 * (end - start) > POOL:
                self._forget()
            starts, sizes = _units(data, start, end)
            where, count = self._look_up(buffer, windows, starts, sizes)
            ends = np.cumsum(count)
            ids.append(self._pool[np.arange(ends[-1]) + np.repeat(where - ends + count, count)])
            closed = ends[data[starts] == END[0]]
            lengths.append(np.diff(closed, prepend=-open_tokens))
            open_tokens = ends[-1] - closed[-1] if len(closed) else open_tokens + ends[-1]
            start = end
        if not ids:
            return np.zeros(0, self.dtype), np.zeros(0, np.int32)
        return np.concatenate(ids), np.concatenate(lengths).astype(np.int32)

    def _look_up(
        self, buffer: bytes, windows: np.ndarray, starts: np.ndarray, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Place in the pool and number of ids of each unit; new units are learnt."""
        where, count = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
        shortest = 0
        for table in self._tables:
            chosen = np.flatnonzero((sizes > shortest) & (sizes <= 8 * table.words))
            shortest = 8 * table.words
            keys = table.load(windows, starts[chosen], sizes[chosen])
            places, missing = table.find(keys)
            if len(missing):
                late = [key[missing] for key in keys]
                new = missing[table.distinct(late)]
                if table.used + len(new) > table.capacity:
                    self._clear(table)
                    return self._look_up(buffer, windows, starts, sizes)
                learnt = self._learn(buffer, starts[chosen[new]], sizes[chosen[new]])
                table.insert([key[new] for key in keys], *learnt)
                places[missing], _ = table.find(late)
            where[chosen], count[chosen] = table.start[places], table.count[places]
        chosen = np.flatnonzero(sizes > shortest)
        if len(chosen):
            where[chosen], count[chosen] = self._learn(buffer, starts[chosen], sizes[chosen])
        return where, count

    def _learn(self, buffer: bytes, starts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put units to the tokenizer and their ids into the pool; place and number of ids of each.

        A line break is a token of its own that nothing merges with, so many units go as one text: units that
        start with a space are parted by line breaks, the others bring theirs. The first token of the text is
        the dummy prefix.
        """
        where, count = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
        after_break = np.frombuffer(buffer, np.uint8)[starts] == ord("\n")
        for kind, before in ((True, b""), (False, b"\n")):
            numbers = np.flatnonzero(after_break == kind)
            for first in range(0, len(numbers), BATCH):
                batch = numbers[first : first + BATCH]
                spans = zip(starts[batch].tolist(), (starts[batch] + sizes[batch]).tolist(), strict=True)
                text = b"".join(before + buffer[start:end] for start, end in spans).decode()
                ids = np.array(self._ask(text), self.dtype)
                breaks = np.flatnonzero(ids == self._line_break)
                begin, end = breaks + (not kind), np.append(breaks[1:], len(ids))
                self._pool[self._used : self._used + len(ids)] = ids
                where[batch], count[batch] = begin + self._used, end - begin
                self._used += len(ids)
        return where, count

    def _forget(self) -> None:
        self._used = 1
        self._pool[0] = self.tokenizer.eos_id
        for table in self._tables:
            self._clear(table)

    def _clear(self, table: WordTable) -> None:
        """Empty one table; the end of a document is a unit that is always known."""
        table.clear()
        if table is self._tables[0]:
            table.insert([np.array([END[0]], np.uint64)], np.array([0]), np.array([1]))


def _units(data: np.ndarray, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and sizes of the units of ``data[start:end]``, which starts with one."""
    part = data[start:end]
    first_space = part == ord(" ")
    first_space[1:] &= part[:-1] != ord(" ")
    starts = np.flatnonzero(first_space | (part == ord("\n")) | (part == END[0])) + start
    return starts, np.diff(starts, append=end)


def _cut(buffer: bytes, start: int) -> int:
    """Where the block that starts at `start` ends: at the last start of a unit within `BLOCK` bytes."""
    end = start + BLOCK
    if end >= len(buffer):
        return len(buffer)
    space = buffer.rfind(b" ", start + 1, end)
    while space > start and buffer[space - 1] == ord(" "):
        space -= 1
    cut = max(space, buffer.rfind(b"\n", start + 1, end), buffer.rfind(END, start + 1, end))
    if cut > start:
        return cut
    following = UNIT_START.search(buffer, end)
    return following.start() if following else len(buffer)


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


def asking(kind: str, tokenizer: Tokenizer) -> Encode:
    """The function that encodes new units: ``kitoken`` or ``sentencepiece``."""
    if kind == "sentencepiece":
        return tokenizer.encode
    import kitoken

    encode = kitoken.Kitoken.from_sentencepiece(tokenizer.model).encode
    return lambda text: encode(text, False)


def encoder(kind: str, tokenizer: Tokenizer, dtype: np.dtype) -> PlainEncoder:
    """An encoder by the name that `choose` gave: ``kitoken``, ``sentencepiece`` or ``plain``."""
    if kind == "plain":
        return PlainEncoder(tokenizer, dtype)
    return WordEncoder(tokenizer, dtype, asking(kind, tokenizer))


def choose(tokenizer: Tokenizer, dtype: np.dtype, sample: Iterable[str]) -> tuple[str, str]:
    """Find the fastest encoder that gives SentencePiece's ids.

    Args:
        tokenizer: the tokenizer of the build.
        dtype: type of the ids.
        sample: texts of the corpus at hand; `HOSTILE` is added.

    Returns:
        Its name for `encoder`, and in words why a faster one was refused, or "".
    """
    if not separable(tokenizer):
        return "plain", "a piece of the tokenizer reaches across words"
    texts = [text.encode() for text in [*HOSTILE, *sample]]
    expected, _ = PlainEncoder(tokenizer, dtype).encode(texts)
    why = ""
    for kind in ("kitoken", "sentencepiece"):
        try:
            found, _ = encoder(kind, tokenizer, dtype).encode(texts)
        except ImportError:
            why = "kitoken is not installed"
            continue
        if np.array_equal(found, expected):
            return kind, why
        why = f"{kind} and SentencePiece disagree on a sample"
    return "plain", why
