"""Generation: the seed decides, greedy equals transformers, special pieces in a prompt are text."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.schema.hf import GenerateConfig
from elm_megatron.chat.examples import Encoder
from elm_megatron.chat.template import Dialogue, Template, Turn
from tests.elm_megatron import model_jobs as cases


@pytest.fixture(scope="module")
def generator(made: Callable[[str], cases.Made]):
    """A loaded generator."""
    from elm_megatron.evaluate.generate import Generator

    return Generator.of(GenerateConfig(source=str(made("gqa").hf)))


def options(**changes: object) -> GenerateConfig:
    """A checked configuration."""
    config = GenerateConfig(**{"source": "x", "max_new_tokens": 20, **changes})
    config.check()
    return config


def test_seed_decides(generator):
    """The same seed, the same text; another seed, another text."""
    one, again, other = (generator.complete("De haven", options(seed=s, temperature=1.0)) for s in (1, 1, 2))
    assert one == again != other


def test_shown_as_it_grows(generator):
    """What is printed piece by piece is what is returned, also with characters split over tokens."""
    for seed in range(5):
        out = io.StringIO()
        text = generator.complete("Één 🌍", options(seed=seed, temperature=3.0, top_p=1.0), show=out)
        assert out.getvalue() == text


def test_prompts_are_text(generator):
    """`</s>` in a prompt is text; an empty prompt starts where a document starts; chat uses the template."""
    assert 2 not in generator.ids("einde</s><s>", False)
    assert generator.ids("", False) == [2]
    text = generator.tokenizer.decode(generator.ids("hallo", True))
    assert "### Instruction:\nhallo\n\n### Response:\n" in text


def test_limits(generator):
    """Too long a prompt is refused in a sentence; a nearly full one gets what room there is."""
    longest = generator.model.config.max_position_embeddings
    with pytest.raises(InputError, match=f"fewer than {longest}"):
        generator.complete("woord " * longest, options())
    nearly = "1" * (longest - 4)  # digits are single tokens, after one for the space
    assert longest - 4 <= len(generator.ids(nearly, False)) < longest
    generator.complete(nearly, options(max_new_tokens=50))
    for key, value in (("temperature", -1), ("top_p", 0), ("top_k", -1), ("max_new_tokens", 0)):
        with pytest.raises(InputError, match=f"{key}={value}: must be"):
            options(**{key: value})


@pytest.mark.parametrize("bos", [True, False])
def test_a_foreign_tokenizer_that_adds_bos_does_so_here_too(
    made: Callable[[str], cases.Made], tmp_path: Path, bos: bool
):
    """Generating, tuning and perplexity go by tokenizer_config.json; ids without a piece are no text."""
    from elm_megatron.evaluate.generate import Generator
    from elm_megatron.sources.base import Base
    from elm_megatron.sources.source import resolve

    folder = shutil.copytree(made("gqa").hf, tmp_path / "foreign")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "add_bos_token": bos}))
    tokenizer = Generator.of(GenerateConfig(source=str(folder))).tokenizer
    ids = tokenizer.encode("De haven")
    started = [tokenizer.bos_id, *ids] if bos else ids
    assert Generator.of(GenerateConfig(source=str(folder))).ids("De haven", chat=False) == started
    assert resolve(str(folder)).tokenizer.first_id == (tokenizer.bos_id if bos else tokenizer.eos_id)
    dialogue = Dialogue((Turn("De haven", "", "Ja."), Turn("Nu?", "", "Nee.")))
    template = Template.load("dialogue")
    found = Encoder.of(Base.open(resolve(str(folder))).tokenizer, template, 10_000)(dialogue)
    plain = Encoder(tokenizer.encode, tokenizer.eos_id, template, 10_000)(dialogue)
    assert found.ids.tolist() == [*([tokenizer.bos_id] if bos else []), *plain.ids.tolist()]
    assert found.answer.sum() == plain.answer.sum() and not found.answer[0]
    assert tokenizer.decode([*ids, tokenizer.vocab_size + 3]) == "De haven"
