"""Generation: the seed decides, greedy equals transformers, special pieces in a prompt are text."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import InputError
from elm_megatron.hf.config import GenerateConfig
from elm_megatron.hf.source import locate, require_hf_folder
from tests.elm_megatron.hf import cases


@pytest.fixture(scope="module")
def generator(made: Callable[[str], cases.Made]):
    """A loaded generator."""
    from elm_megatron.hf.generate import Generator

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


def test_sources(made: Callable[[str], cases.Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder, an export run, a run's name; a run that was not exported names the command."""
    one = made("gqa")
    assert require_hf_folder(str(one.hf)) == require_hf_folder(str(one.hf.parent)) == one.hf
    with pytest.raises(InputError, match=r"python launch/export\.py source="):
        require_hf_folder(str(one.run))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(one.hf.parent)
    assert locate("mine") == tmp_path / "runs" / "mine"
    with pytest.raises(InputError, match="source=other: neither other nor runs/other is a run"):
        locate("other")


def test_chat_template_gives_the_same_prompt(made: Callable[[str], cases.Made]):
    """apply_chat_template writes what Template.prompt writes, over several turns."""
    from transformers import AutoTokenizer

    from elm_megatron.tune.template import Dialogue, Template, Turn

    tokenizer = AutoTokenizer.from_pretrained(made("gqa").hf)
    turns = (Turn("Wat is 'een' \"haven\"?", "", "Een plek."), Turn("En {instruction}?\n", "", ""))
    template = Template.load("alpaca")
    for system in ("", "Wees kort."):
        dialogue = Dialogue(turns, system)
        wanted = template.prompt(dialogue, 0) + "Een plek.</s>" + template.prompt(dialogue, 1)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": "user", "content": turns[0].instruction},
            {"role": "assistant", "content": turns[0].response},
            {"role": "user", "content": turns[1].instruction},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == wanted
