"""The instruction prompt of the published chat model (Alpaca's), as text and as a chat template.

Training and generation build prompts from `turn` and add the end-of-sequence id themselves. The template is
for other programs; since the exported tokenizer takes `</s>` in a text for text, it cannot emit that id.
Torch-free.
"""

from __future__ import annotations

PREAMBLE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
)
PREAMBLE_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
INSTRUCTION = "### Instruction:\n"
INPUT = "### Input:\n"
RESPONSE = "### Response:\n"


def turn(instruction: str, context: str = "") -> str:
    """The prompt of one instruction, up to where the response begins."""
    if context:
        return f"{PREAMBLE_WITH_INPUT}{INSTRUCTION}{instruction}\n\n{INPUT}{context}\n\n{RESPONSE}"
    return f"{PREAMBLE}{INSTRUCTION}{instruction}\n\n{RESPONSE}"


def _quoted(text: str) -> str:
    return text.replace("\n", "\\n")


# One preamble (a system message replaces it), then turns; gives exactly `turn` for a single user message.
TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] + '\\n\\n' -}}"
    "{%- else -%}{{- '" + _quoted(PREAMBLE) + "' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '" + _quoted(INSTRUCTION) + "' + message['content'] + '\\n\\n' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '" + _quoted(RESPONSE) + "' + message['content'] + eos_token -}}"
    "{%- if not loop.last -%}{{- '\\n\\n' -}}{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '" + _quoted(RESPONSE) + "' -}}{%- endif -%}"
)
