"""A traced answer on a terminal: its passages in colour with their numbers, then the works of each."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from elm_megatron.trace.index import Work
from elm_megatron.trace.tracer import Span, Trace

MARK, NUMBER = "black on yellow", "bold magenta"
# What would move a terminal's cursor, change its colours or turn the direction of text around is shown as one
# other character.
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
CONTROLS |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


def show(trace: Trace, console: Console, works: int | None) -> None:
    """Print a trace. Without colours too, `[1 … 1]` tells where passage 1 begins and ends.

    Args:
        works: how many works of a passage are named at most; None is all.
    """
    console.print(marked(trace), soft_wrap=True)
    console.print()
    for number, span in enumerate(trace.spans, start=1):
        console.print(_line(number, span, works), soft_wrap=True)
    console.print(Text(_summary(trace)), soft_wrap=True)


def marked(trace: Trace) -> Text:
    """The answer with its passages marked."""
    shown, before = Text(), ()
    for start, stop, numbers in trace.pieces():
        _close(shown, before, numbers)
        for number in numbers:
            if number not in before:
                shown.append(f"[{number + 1} ", NUMBER)
        shown.append(_plain(trace.text[start:stop]), MARK if numbers else "")
        before = numbers
    _close(shown, before, ())
    return shown


def _close(shown: Text, before: tuple[int, ...], now: tuple[int, ...]) -> None:
    for number in before:
        if number not in now:
            shown.append(f" {number + 1}]", NUMBER)


def _line(number: int, span: Span, works: int | None) -> Text:
    named = span.works[:works]
    more = len(span.works) - len(named)
    line = Text(f"[{number}] ", NUMBER)
    line.append(f"{span.tokens} tokens, {_count(span.times, 'time')} in {_count(len(span.works), 'work')}: ")
    line.append("; ".join(_plain(_name(work)).replace("\n", " ") for work in named))
    return line.append(f"; and {more} more") if more else line


def _name(work: Work) -> str:
    details = ", ".join(str(value) for value in (work.title, work.year) if value)
    return f"{work.id} ({details})" if details else work.id


def _summary(trace: Trace) -> str:
    if not trace.spans:
        return f"no passage of this answer of {trace.tokens} tokens is in the training works"
    share = trace.covered / len(trace.text)
    found = {work.id for span in trace.spans for work in span.works}
    passages = _count(len(trace.spans), "passage")
    return f"{share:.0%} of the characters are in {passages} from {_count(len(found), 'work')}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").translate(CONTROLS)
