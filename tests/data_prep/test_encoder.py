"""The fast encoder against SentencePiece, on text meant to break it."""

import random

import numpy as np
import pytest

from conf.schema.preprocess import TokenizerConfig
from data_prep import encoder as module
from data_prep.encoder import HOSTILE, PlainEncoder, WordEncoder, choose, encoder, separable
from data_prep.tokenizer import Tokenizer
from data_prep.train_tokenizer import train
from data_prep.wordtable import WordTable
from tests.data_prep.conftest import SAMPLE

DTYPE = np.dtype(np.uint16)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [path.read_text().replace("\\n", "\n") for path in sorted(SAMPLE.glob("*.txt"))]
    return Tokenizer(train(texts, TokenizerConfig(vocab_size=1000)))


def same(tokenizer, fast, texts):
    data = [text.encode() for text in texts]
    expected, found = PlainEncoder(tokenizer, DTYPE).encode(data), fast.encode(data)
    assert np.array_equal(expected[1], found[1])
    assert np.array_equal(expected[0], found[0])


def random_texts(seed, count=300):
    generator = random.Random(seed)
    atoms = [" ", "  ", "\n", "\n\n", "\t", "a", "de", "het", "ing", "x" * 40, "x" * 70, "é", "日", "👩"]
    atoms += ["</s>", "1", "http://a.b/" + "c" * 30, ".", "_", "\u00a0", "\u2028", "<0x0A>", "\\n"]
    for _ in range(count):
        yield "".join(generator.choices(atoms, k=generator.randrange(0, 40)))


@pytest.mark.parametrize("kind", ["kitoken", "sentencepiece"])
def test_ids_are_sentencepieces_on_hostile_text(tokenizer, kind):
    fast = encoder(kind, tokenizer, DTYPE)
    assert isinstance(fast, WordEncoder)
    same(tokenizer, fast, HOSTILE)
    same(tokenizer, fast, list(random_texts(1)))
    same(tokenizer, fast, [])


def test_ids_do_not_depend_on_where_blocks_end_or_what_is_forgotten(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 61)
    monkeypatch.setattr(module, "POOL", 1 << 12)
    monkeypatch.setattr(module, "BATCH", 7)
    monkeypatch.setattr(module, "TABLES", ((1, 7), (2, 7), (4, 7), (8, 7)))
    fast = WordEncoder(tokenizer, DTYPE)
    for seed in range(6):
        same(tokenizer, fast, list(random_texts(seed, 100)))
    texts = [path.read_text() for path in sorted(SAMPLE.glob("*.txt"))]
    same(tokenizer, fast, texts)


def test_control_characters_and_the_sign_of_a_space_take_the_slow_way(tokenizer):
    fast = WordEncoder(tokenizer, DTYPE)
    same(tokenizer, fast, ["a\x01b", "good text", "nul \x00 here", "a\u2581b", "", "\x01"])


def test_a_text_of_megabytes_without_a_space(tokenizer):
    fast = WordEncoder(tokenizer, DTYPE)
    same(tokenizer, fast, ["x" * (1 << 20) + " y", "line\n" * 200_000, " " * 1000])


def test_a_tokenizer_whose_pieces_cross_words_is_encoded_plainly(tokenizer):
    import io

    import sentencepiece

    model = io.BytesIO()
    texts = [line for path in SAMPLE.glob("*.txt") for line in path.read_text().split("\\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=600, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", split_by_whitespace=False, minloglevel=3,
    )  # fmt: skip
    crossing = Tokenizer(model.getvalue())
    assert separable(tokenizer) and not separable(crossing)
    kind, why = choose(crossing, DTYPE, texts)
    assert kind == "plain" and "across words" in why


def test_a_disagreeing_encoder_is_refused_aloud(tokenizer, monkeypatch):
    asking = module.asking

    def wrong(kind, tok):
        right = asking(kind, tok)
        return right if kind == "sentencepiece" else lambda text: [id + (id == 300) for id in right(text)]

    monkeypatch.setattr(module, "asking", wrong)
    texts = [path.read_text() for path in SAMPLE.glob("*.txt")]
    kind, why = choose(tokenizer, DTYPE, texts)
    assert kind == "sentencepiece" and "disagree" in why


def test_the_table_never_confuses_strings_with_the_same_hash(monkeypatch):
    monkeypatch.setattr(WordTable, "_hash", lambda self, keys: np.zeros(len(keys[0]), np.int64))
    table = WordTable(2, 6)
    keys = [np.arange(1, 30, dtype=np.uint64), np.arange(1, 30, dtype=np.uint64) % 3]
    table.insert(keys, np.arange(29), np.arange(29) + 1)
    places, missing = table.find(keys)
    assert not len(missing) and table.start[places].tolist() == list(range(29))
    _, missing = table.find([np.array([5, 5, 99], np.uint64), np.array([2, 1, 0], np.uint64)])
    assert missing.tolist() == [1, 2]
