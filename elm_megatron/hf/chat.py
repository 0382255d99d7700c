"""A prompt template as the Jinja chat template that other programs read. Torch-free.

Tuning and our own generation build prompts from the template file and add the end-of-sequence id themselves.
In the exported tokenizer `</s>` in a text is text, so the chat template cannot emit that id (see the card).
"""

from __future__ import annotations

import json

from elm_megatron.tune.template import Template


def jinja(template: Template) -> str:
    """The chat template that gives the same text as `Template.prompt` for dialogues without a context.

    A system message stands in the preamble's place. The response's heading belongs to the user's turn, so
    that `add_generation_prompt` changes nothing.
    """
    system = _around(template.system, "{system}", "messages[0]['content']")
    user = _around(template.turn, "{instruction}", "message['content']")
    return (
        f"{{%- if messages[0]['role'] == 'system' -%}}{{{{- {system} -}}}}"
        f"{{%- else -%}}{{{{- {_text(template.preamble)} -}}}}{{%- endif -%}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}"
        f"{{%- if loop.index0 > 0 and messages[loop.index0 - 1]['role'] == 'assistant' -%}}"
        f"{{{{- {_text(template.between)} -}}}}{{%- endif -%}}"
        f"{{{{- {user} -}}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        "{{- message['content'] + eos_token -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    )


def _text(text: str) -> str:
    """A text as a Jinja string."""
    return json.dumps(text, ensure_ascii=False)


def _around(text: str, slot: str, variable: str) -> str:
    """A text with one slot as a Jinja expression."""
    before, _, after = text.partition(slot)
    return f"{_text(before)} + {variable} + {_text(after)}"
