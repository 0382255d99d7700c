import pytest

from conf.errors import InputError
from conf.schema.preprocess import TokenizerConfig
from data_prep.encoder import HOSTILE
from data_prep.tokenizer import Tokenizer
from data_prep.train_tokenizer import in_sample, json_differences, lines, to_json, train
from tests.data_prep.conftest import SAMPLE


@pytest.fixture(scope="module")
def texts():
    return [path.read_text().replace("\\n", "\n") for path in sorted(SAMPLE.glob("*.txt"))]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return Tokenizer(train(texts, TokenizerConfig(vocab_size=512)))


def test_any_text_comes_back(tokenizer, texts):
    for text in [*HOSTILE, *texts]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_ids_are_four_and_text_never_gives_them(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 3, 512)
    ids = tokenizer.encode("<s> a </s> <pad> <unk>")
    assert not {0, 1, 2, 3}.intersection(ids)
    assert tokenizer.decode([1, *ids, 2, 3]) == "<s> a </s> <pad> <unk>"


def test_the_json_gives_the_same_ids(tokenizer, texts):
    assert json_differences(tokenizer, to_json(tokenizer), texts) == []


def test_the_gate_sees_a_json_that_differs(tokenizer, texts):
    other = to_json(Tokenizer(train(texts[:5], TokenizerConfig(vocab_size=512))))
    assert json_differences(tokenizer, other, texts)


def test_training_twice_gives_the_same_bytes(texts):
    assert train(texts, TokenizerConfig()) == train(texts, TokenizerConfig())


@pytest.mark.parametrize(
    ("size", "says"), [(30_000, "too large.*at most"), (290, "too small.*characters alone need")]
)
def test_a_vocabulary_that_does_not_fit_the_corpus_is_one_sentence(texts, size, says):
    with pytest.raises(InputError, match=says) as caught:
        train(texts, TokenizerConfig(vocab_size=size))
    assert "\n" not in str(caught.value) and f"tokenizer.vocab_size={size}" in str(caught.value)


def test_long_lines_are_cut_and_not_skipped():
    text = ("woord " * 3000).strip() + "\n" + "x" * 9000 + "\nkort"
    cut = list(lines([text]))
    assert "".join(cut) == text.replace("\n", "")
    assert max(len(line.encode()) for line in cut) <= 4000


def test_the_training_sample_is_seeded_and_has_its_share():
    first = [in_sample(f"work {n}", 1, 0.3) for n in range(2000)]
    assert first == [in_sample(f"work {n}", 1, 0.3) for n in range(2000)]
    assert first != [in_sample(f"work {n}", 2, 0.3) for n in range(2000)]
    assert 500 < sum(first) < 700


def test_loading_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(InputError, match="not a SentencePiece model"):
        Tokenizer.load(tmp_path)
