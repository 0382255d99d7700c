"""The typed configuration of `python launch/trace_answer.py`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from conf import typed
from conf.errors import require
from conf.limits import Count, Within
from conf.schema.hf import DatasetChoice


@dataclass
class TraceConfig:
    """Everything of `python launch/trace_answer.py`.

    Attributes:
        source: the model whose training works are looked through: a run, tuned or not, or a Hugging Face
            folder that was exported from one.
        text: the answer, in quotes inside quotes where it has a comma ('text="Yes, it is"'); null reads
            `file`.
        file: a file with the answer; null reads standard input, at a terminal one answer after another.
        min_tokens: tokens of a passage at least.
        works: works listed for a passage at most; null is all.
        json: print the passages as JSON.
        data: the dataset; null is each one that the model was trained on.
        index_dir: folder for the index; null is trace/ in the dataset's folder, or in the run's folder where
            that cannot be written.
    """

    source: str
    text: str | None = None
    file: str | None = None
    min_tokens: Annotated[int, Within(ge=2)] = 8
    works: Count | None = 5
    json: bool = False
    data: DatasetChoice = field(default_factory=DatasetChoice)
    index_dir: str | None = None

    def check(self) -> None:
        """Refuse two answers at once."""
        typed.check(self)
        require(self.text is None or self.file is None, "text and file: give one of them.")
