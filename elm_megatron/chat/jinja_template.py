"""A prompt template as the Jinja chat template that other programs read. Torch-free.

Tuning encodes prompts and answers apart, so an answer begins with a space (SentencePiece puts one before
every text) and ends with the end-of-sequence id. In the exported Hugging Face tokenizer `</s>` in a text is
text, so there the chat template cannot emit that id (see the card); llama.cpp takes it from the text.
"""

from __future__ import annotations

import json

from elm_megatron.chat.template import SLOT, Template


def jinja(template: Template, eos: bool) -> str:
    """The chat template that gives the same text as `Template.prompt` for dialogues without a context.

    A system message stands in the preamble's place. The response's heading belongs to the user's turn, so
    that `add_generation_prompt` changes nothing.

    Args:
        eos: close each answer with the text of the end-of-sequence token.
    """
    system = _filled(template.system, "messages[0]['content']")
    user = _filled(template.turn, "message['content']")
    answer = "' ' + message['content']" + (" + eos_token" if eos else "")
    return (
        f"{{%- if messages[0]['role'] == 'system' -%}}{{{{- {system} -}}}}"
        f"{{%- else -%}}{{{{- {_text(template.preamble)} -}}}}{{%- endif -%}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}"
        f"{{%- if loop.index0 > 0 and messages[loop.index0 - 1]['role'] == 'assistant' -%}}"
        f"{{{{- {_text(template.between)} -}}}}{{%- endif -%}}"
        f"{{{{- {user} -}}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        f"{{{{- {answer} -}}}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    )


def _text(text: str) -> str:
    """A text as a Jinja string."""
    return json.dumps(text, ensure_ascii=False)


def _filled(text: str, variable: str) -> str:
    """A text with a variable in its slots, which are all of one name, as a Jinja expression."""
    return f" + {variable} + ".join(map(_text, SLOT.split(text)[::2]))
