"""E-mail addresses, as people write and hide them: wrapped at a line end, with [at] and [dot], or spoken.

As in `figures.py`, every pattern takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_prep.spans import Span

AT_WORD = r"(?:@|at|a|apen?staart(?:je)?)"
AT = rf"\s?(?:[@\uff20]|[\[({{<]\s?{AT_WORD}\s?[\])}}>]|&#(?:64|x40);|&commat;|%40)\s?"
DOT = r"(?:[.\uff0e]\n?|\s?[\[({]\s?(?:dot|punt|\.)\s?[\])}]\s?)"
LABEL = r"[^\W_](?:[^\W_]|-\n?){0,62}"
AT_IN_BRACKETS = re.compile(rf"[\[({{<](?i:\s?{AT_WORD}\s?[\])}}>])")
AT_SIGNS = ("@", "\uff20", "&#64;", "&#x40;", "&commat;", "%40")
# RFC 5321, section 4.5.3.1.1: at most 64 characters before the at-sign.
EMAIL = re.compile(
    rf"(?:\b\w\.\n|\b[\w.]{{1,30}}-\n|\"[\w. ]{{1,60}})?[\w.+'’-]{{1,64}}+\"?{AT}"
    rf"(?P<domain>{LABEL}(?:{DOT}{LABEL}){{1,8}})"
    r"|[\[{(][\w.,;\s-]{1,200}[\])}]@[\w.-]+\w",
    re.I,
)
# "persoon at eur dot nl", "persoon_at_eur.nl", "persoon -at- eur.nl", "persoon@eur. nl".
SPOKEN = re.compile(
    rf"(?<![\w.-])[^\W_][\w.+-]{{0,60}}?(?: (?:at|AT|apenstaartje) "
    rf"(?P<spoken>{LABEL}(?: (?:dot|DOT|punt) {LABEL}){{1,4}})"
    rf"|(?:_at_| -at- ?)(?P<dotted>{LABEL}(?:\.{LABEL}){{1,4}})"
    rf"|@(?P<parted>{LABEL}(?:\.{LABEL}){{0,4}}\. (?!com\w)[a-z]{{2,3}}))(?![\w-])"
)
SPOKEN_SIGNS = (" dot ", " DOT ", " punt ", "_at_", " -at-", "@")
GLUED = re.compile(r"(?:nl|com|org|edu|net|be|de|eu)(?=[A-Z])")  # "eur.nlTel": the next word sticks to it
_COUNTRIES_AND_MORE = """
com org net edu gov int mil info eu biz name museum online site email amsterdam frl gent brussels
vlaanderen berlin hamburg london paris company academy agency app blog cloud club consulting design
dev digital energy finance foundation group health institute law legal life live media network news
pro school shop software solutions studio support systems team tech today tools university ventures
works world xyz zone ac
ad ae af ag al am ao ar at au az ba bb bd be bf bg bh bi bj bn bo br bs bt bw by bz ca cd cf cg ch
ci cl cm cn co cr cu cv cw cy cz de dj dk dm do dz ec ee eg er es et fi fj fm fo fr ga gb gd ge gf
gg gh gi gl gm gn gp gq gr gt gu gw gy hk hn hr ht hu id ie il im in iq ir is it je jm jo jp ke kg
kh km kn kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mk ml mm mn mo mp mq mr ms mt
mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pr ps pt pw py qa
re ro rs ru rw sa sb sc sd se sg si sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm
tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw example test
invalid
"""
TOP_LEVEL = frozenset(_COUNTRIES_AND_MORE.split())
CAPITALISED = ("Com", "Nl", "Org", "Net", "Edu")  # other words with a capital begin a sentence
WORDS = ("am", "as", "at", "be", "by", "de", "do", "in", "is", "it", "me", "my", "no", "so", "to", "us")
LIST_SIGN = re.compile(r"[^\W\d_]+\s?[\[({<]\s?a\s?[\])}>]\s?", re.I)


def emails(text: str) -> Iterator[Span]:
    """The e-mail addresses of a text, also wrapped at a line end and with [at] and [dot]."""
    if any(sign in text for sign in SPOKEN_SIGNS):
        yield from _spoken_emails(text)
    if not any(sign in text for sign in AT_SIGNS) and not AT_IN_BRACKETS.search(text):
        return
    at = 0
    while found := EMAIL.search(text, at):
        start, end = found.span()
        if found["domain"] is not None:
            end = _domain_end(text, *found.span("domain"))
            if end and _is_list_sign(text[start : found.start("domain")], text[found.start("domain") : end]):
                end = 0
        if end:
            yield start, end
        at = max(end, start + 1) if end else found.start("domain")


def _spoken_emails(text: str) -> Iterator[Span]:
    for found in SPOKEN.finditer(text):
        parted = found["parted"]
        labels = re.split(r"\.\s?| (?:dot|DOT|punt) ", parted or found["spoken"] or found["dotted"])
        known = labels[-1].lower() in TOP_LEVEL and len(labels[-2]) > 1
        if known and not (parted and (labels[-1] in WORDS or labels[-2].lower() in TOP_LEVEL)):
            yield found.span()


def _is_list_sign(before: str, domain: str) -> bool:
    """Whether "(a)" behind a word counts: before the address of a site, or where two sentences touch."""
    top_level = domain.rpartition(".")[2].lower()
    return bool(LIST_SIGN.fullmatch(before)) and (domain.startswith("www.") or top_level in WORDS)


def _domain_end(text: str, start: int, end: int) -> int:
    """Where a domain ends: behind the last label that is a top-level domain; 0 where there is none."""
    dots = [item.start() for item in re.finditer(DOT, text[start:end], re.I)]
    ends = [*dots[1:], end - start]
    labels = re.split(DOT, text[start:end], flags=re.I)
    for number in range(len(labels) - 1, 0, -1):
        label = labels[number]
        if len(labels[number - 1]) > 1 and (glued := GLUED.match(label)):
            return start + ends[number - 1] - len(label) + glued.end()
        if (
            (label.islower() or label.isupper() or label in CAPITALISED)
            and label.lower() in TOP_LEVEL
            and len(labels[number - 1]) > 1
        ):
            return start + ends[number - 1]
    return 0
