import random

import pytest

from conf.schema.preprocess import DedupConfig
from data_prep.dedup import BLOCK_RECORD, DOCUMENT_RECORD, decide, fingerprints
from tests.data_prep.conftest import sample_words


def works(count=12, seed=0):
    generator, words = random.Random(seed), sample_words()
    return [[" ".join(generator.choices(words, k=60)) for _ in range(8)] for _ in range(count)]


def changed(block, share, seed=1):
    generator, words = random.Random(seed), block.split()
    for place in generator.sample(range(len(words)), int(share * len(words))):
        words[place] = "anders"
    return " ".join(words)


def result(documents, tmp_path, **changes):
    config = DedupConfig(**changes)
    return decide((fingerprints(blocks, config) for blocks in documents), config, tmp_path)


def test_different_works_stay(tmp_path):
    found = result(works(40), tmp_path)
    assert found.documents == {} and found.blocks == {}


def test_exact_near_and_different(tmp_path):
    documents = works()
    documents[5] = [
        block.upper().replace(" ", "\n") for block in documents[2]
    ]  # case and breaks do not matter
    documents[7] = [changed(block, 0.02, n) for n, block in enumerate(documents[3])]
    documents[9] = [changed(block, 0.5, n) for n, block in enumerate(documents[4])]
    found = result(documents, tmp_path, blocks=False)
    assert found.documents == {5: "exact_duplicate", 7: "near_duplicate"}


def test_the_first_stays_whatever_comes_later(tmp_path):
    documents = works(3)
    found = result([documents[0], documents[0], documents[1], documents[0]], tmp_path)
    assert found.documents == {1: "exact_duplicate", 3: "exact_duplicate"}


def test_blocks_that_were_there_before_go_alone(tmp_path):
    documents = works()
    documents[6][2] = documents[1][4]
    documents[8][0] = changed(documents[1][5], 0.016)
    documents[8][3] = changed(documents[1][6], 0.4)
    found = result(documents, tmp_path)
    assert found.documents == {} and found.blocks == {6: {2}, 8: {0}}


def test_a_work_of_nothing_but_earlier_blocks_goes_as_a_whole(tmp_path):
    documents = works()
    documents[6] = [documents[1][4], documents[2][0]]
    found = result(documents, tmp_path)
    assert found.documents == {6: "duplicate_blocks"} and found.blocks == {}


def test_blocks_of_a_dropped_work_take_nothing_with_them(tmp_path):
    documents = works(4)
    documents[1] = list(documents[0])
    found = result(documents, tmp_path)
    assert found.documents == {1: "exact_duplicate"} and found.blocks == {}


def test_each_rule_can_be_switched_off(tmp_path):
    documents = works(3)
    documents[1] = list(documents[0])
    off = result(documents, tmp_path, exact=False, near=False, blocks=False)
    assert off.documents == {} and off.blocks == {}
    assert result(documents, tmp_path, exact=False).documents == {1: "near_duplicate"}


def test_on_disk_in_several_passes_the_answer_is_the_same(tmp_path):
    documents = works(400, seed=3)
    for n in range(0, 400, 7):
        documents[n] = [changed(block, 0.02, n) for block in documents[n // 2]]
        documents[(n + 3) % 400][1] = documents[(n * 5) % 400][2]
    memory = result(documents, tmp_path)
    disk = result(documents, tmp_path, memory_mb=0.01)
    assert memory.documents and memory.blocks and disk == memory
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("record", "size"), [(DOCUMENT_RECORD, 264), (BLOCK_RECORD, 72)])
def test_the_stated_size_of_the_state(record, size):
    assert record.itemsize == size
