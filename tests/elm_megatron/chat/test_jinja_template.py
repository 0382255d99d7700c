"""The chat template that other programs read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.tokenizer import Tokenizer
from elm_megatron.chat.examples import Encoder
from elm_megatron.chat.template import Dialogue, Template, Turn
from tests.elm_megatron import model_jobs as cases

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.parametrize("name", ["alpaca", "dialogue"])
@pytest.mark.parametrize("system", ["", "Wees kort."])
def test_chat_template_gives_the_ids_of_tuning(made: Callable[[str], cases.Made], name: str, system: str):
    """By the README's recipe over several turns; with EOS written out, the text of the whole dialogue."""
    from transformers import AutoTokenizer

    from elm_megatron.chat.jinja_template import jinja

    template = Template.load(name)
    tokenizer = AutoTokenizer.from_pretrained(made("gqa").hf)
    assert name != "alpaca" or tokenizer.chat_template == jinja(template, eos=False)
    turns = (Turn("Wat is 'een' \"haven\"?", "", "Een  plek."), Turn("En {instruction}?\n", "", "Nee. </s>"))
    dialogue = Dialogue(turns, system)
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages.append({"role": "user", "content": turn.instruction})
        messages.append({"role": "assistant", "content": turn.response})
    tokenizer.chat_template = jinja(template, eos=False)
    scope: dict[str, Any] = {"tokenizer": tokenizer}
    exec("def chat_ids" + README.read_text().split("```python\ndef chat_ids")[1].split("```")[0], scope)
    wanted = Encoder.of(Tokenizer.load(made("gqa").hf), template, 10_000)(dialogue).ids.tolist()
    assert scope["chat_ids"](messages) == wanted
    asked = Encoder.of(Tokenizer.load(made("gqa").hf), template, 10_000)(Dialogue(turns[:1], system)).ids
    prompt = template.prompt(dialogue, 1)
    assert scope["chat_ids"](messages[:-1]) == [*asked, *Tokenizer.load(made("gqa").hf).encode(prompt)]
    tokenizer.chat_template = jinja(template, eos=True)
    text = template.prompt(dialogue, 0) + " Een  plek.</s>" + prompt + " Nee. </s></s>"
    assert tokenizer.apply_chat_template(messages, tokenize=False) == text
