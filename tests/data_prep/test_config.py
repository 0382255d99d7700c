import pytest

from conf.errors import InputError
from conf.names import folder_name
from conf.schema.preprocess import HarvestSource, PreprocessConfig
from data_prep.settings import from_mapping, to_mapping
from tests.data_prep.conftest import settings


def test_the_mapping_round_trips_with_lists_of_sources():
    config = PreprocessConfig()
    config.corpus.harvest.sources = [HarvestSource("a", "http://x/oai", hosts=["y"])]
    assert from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("tokenizer__vocab_size", 100, "at least 261"),
        ("preprocess__ranks", 0, "at least 1"),
        ("preprocess__valid_fraction", 1.0, "between 0 and 1"),
        ("corpus__formats", ["doc"], "txt, pdf"),
        ("clean__languages", ["de"], "nl, en, other"),
        ("corpus__name", "../up", "letters, digits"),
        ("clean__dedup__threshold", 0.2, "between 0.5 and 1"),
    ],
)
def test_wrong_values_are_refused_naming_the_key(tmp_path, key, value, says):
    with pytest.raises(InputError, match=says) as caught:
        settings(tmp_path, **{key: value}).check()
    assert key.replace("__", ".") in str(caught.value)


@pytest.mark.parametrize(
    "package", ["no_such", "no_such.thing", "", ".data_prep", "__main__", "json.decoder"]
)
def test_a_package_that_is_not_there_is_named(tmp_path, package):
    config = settings(tmp_path, corpus__path=f"pkg://{package}/x")
    with pytest.raises(InputError, match=f"corpus.path=pkg://{package}/x: there is no package '{package}'"):
        config.corpus.folder()


def test_a_corpus_takes_its_name_from_its_folder(tmp_path):
    assert folder_name("pkg://data_prep/sample") == "sample"
    assert folder_name(f"{tmp_path}/Mijn scripties (2024)/") == "Mijn-scripties-2024"
    assert folder_name("/") == "corpus"
