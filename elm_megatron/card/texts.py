"""The sentences of the model card that do not depend on a run."""

from __future__ import annotations

INTRODUCTION = (
    "A language model of the Llama family, made with the ELM job suite of Erasmus University Rotterdam, to "
    "be run on one's own machines. Every figure below comes from the records of its runs and of its data; "
    "what they do not hold is given as unknown."
)

NOT_EVALUATED = "Not evaluated yet; `python launch/eval.py` fills this section."

TOKENIZER = (
    "No BOS token was used in training, so none is added; EOS closes each document. The tokenizer takes "
    "special pieces written in a text (`<s>`, `</s>`) for plain text. Therefore `apply_chat_template` cannot "
    "produce the EOS id. In a dialogue of several turns encode each turn by itself, as tuning did, and put "
    "`tokenizer.eos_token_id` behind each finished answer (the README of the job suite has the lines)."
)

GATE = (
    "Before the folder got its name, Megatron's own layers (weights rounded to the exported type) and "
    "transformers' layers (weights of the files above) were run in fp32 over the same Dutch and English "
    "text. The export fails above a difference of 1e-4 in any logit."
)

LIMITS = (
    "- Meant for research and teaching on how language models are made, and for drafts a person checks.\n"
    "- It states false things fluently. Do not use it to grade, to decide about people, or as a source.\n"
    "- It knows the registers and languages of its data (see Data); others are poor.\n"
    "- Redaction of personal data works by rule, with the counts under Data, and misses cases. If you find "
    "personal data in the output, report it to the data steward of the university.\n"
    "- Its views are those of its sources, unbalanced as they are."
)


CHAT = (
    "It was tuned for chat and expects the prompt of `template.yaml`, which `generate.py` uses by itself and "
    "`tokenizer.apply_chat_template(messages)` writes elsewhere."
)


def usage(tuned: bool) -> str:
    """How to load and run the model.

    Args:
        tuned: whether it was tuned for chat.
    """
    return """```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
ids = tokenizer("De haven van Rotterdam", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```

With the suite itself: `echo "De haven" | python launch/generate.py source=<this folder>`.
""" + (CHAT if tuned else "")


def citation(name: str, year: int | str, commit: str | None) -> str:
    """A BibTeX entry."""
    key = "".join(c if c.isalnum() else "-" for c in name)
    return (
        "```bibtex\n"
        f"@misc{{{key},\n"
        f"  title = {{{name}: an Erasmian language model}},\n"
        "  author = {{Students and staff of Erasmus University Rotterdam}},\n"
        f"  year = {{{year}}},\n"
        f"  note = {{Made with the ELM job suite, commit {commit or 'unknown'}}}\n"
        "}\n```"
    )
