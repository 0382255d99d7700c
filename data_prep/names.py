"""Names in running text: acknowledgements, colophons, lists of interviews.

Only blocks that a cheap rule marks are looked at: those with a cue such as "ik dank" or "I would like to
thank", and those below a heading such as "Dankwoord". In these, `rules` take sequences of capitalised words
that a title, initials, a given name or the cue make a name; `ner` adds what a model of the user's finds
(`ner.py`). The same person gets the same placeholder in the whole work. Organisations, and authors in
citations, stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from conf.schema.preprocess import RedactConfig
from data_prep import ner
from data_prep.given_names import GIVEN_NAMES
from data_prep.people import ORGANISATION, PREFIXES, TITLE_WORDS, plain
from data_prep.spans import Span, replace

KIND = "name in text"
HEADING = re.compile(
    r"^\W*(?:[\divx]+\.?\s*)?(?:acknowledge?ments?|preface|foreword|dankwoord|dankbetuiging|voorwoord|"
    r"woord vooraf|"
    r"word of thanks|(?:list of |overview of )?(?:interviewees|interviews|respondents|participants)|"
    r"(?:lijst van |overzicht (?:van )?)?(?:geïnterviewden|interviews|respondenten|deelnemers))\b.{0,40}$",
    re.I,
)
CUE = re.compile(
    r"\b(?:thank(?:s|ed|ful)?|grateful|gratitude|indebted|dedicated? (?:this|to)|appreciat\w+|acknowledg\w+|"
    r"(?:be)?dank\w*|danken|dankbaar\w*|erkentelijk\w*|opgedragen aan|supervis(?:ed|ion)|begeleiding|"
    r"interview(?:ed|s)? (?:with|of)|interviewee|interview(?:s)? met|geïnterviewd\w*|my "
    r"(?:parents|family|friends|girlfriend|boyfriend|partner|husband|wife|brothers?|sisters?|supervisors?)|"
    r"mijn (?:ouders|familie|vrienden|vriendin|vriend|partner|man|vrouw|broers?|zus(?:sen|je)?|"
    r"begeleiders?))\b",
    re.I,
)
# Each cue has one; these are much faster to look for.
CUE_WORDS = ("thank", "grat", "indebted", "dedicate", "appreciat", "acknowledg", "dank", "erkentelijk")
CUE_WORDS += ("opgedragen", "supervis", "begeleiding", "interview", "geïnterviewd", "my ", "mijn ")
BELOW = 4  # blocks, that of the heading too
FRONT, BACK = 0.15, 0.10  # shares of a work where a weak cue marks a block
STRONG_CUE = re.compile(
    r"\b(?:(?:i|we)(?: would| want| wish| also| sincerely| especially)*(?: like)?(?: to)?(?: also|"
    r" especially| sincerely)* thank"
    r"|(?:(?:ik|wij|we)(?: wil| willen| zou| ook| graag| hierbij)* (?:be)?dank\w*)|dank(?:t|en)? (?:ik|"
    r"wij|we)|"
    r"(?:wil|willen|zou) (?:ik|wij|we) [^.]{0,60}\bbedank\w+|"
    r"special thanks|many thanks|(?:my|our) gratitude|(?:bijzondere|speciale) dank|met dank aan|"
    r"interview(?:ed|s)? with)\b",
    re.I,
)
STRONG_WORDS = ("thank", "gratitude", "dank", "interview")  # each strong cue has one
WORD = r"[^\W\d_a-zß-öø-ÿ][\w'’-]*\.?"
PREFIX = (
    r"(?:van|de|der|den|ten|ter|te|het|'t|’t|in|op|von|zu|di|da|del|la|le|el|al|bin|ben|ibn|dos|du|v\.d\.)"
)
SEQUENCE = re.compile(
    rf"(?<![\w@.])(?:{WORD})(?:[ \n]+(?:{PREFIX}[ \n]+){{0,3}}{WORD}|[ \n]*\([^\W\d_][\w'’-]*\)){{0,6}}"
)
INITIAL = re.compile(r"(?:[^\W\d_]\.-?)+")
CITED = re.compile(r"\s*(?:et al|\(?(?:19|20)\d\d|&|\(\d)")
_NO_NAME_TEXT = """
i ik we wij my mijn our onze the de het een a an this these that dit deze dat they zij ze he she hij
it also ook finally tot slot first firstly second secondly third lastly eerst allereerst ten verder
daarnaast bovendien moreover furthermore special speciale thank thanks dank bedankt without zonder
with met for voor in during tijdens after na and en but maar to aan from van all alle many veel dear
beste lieve if als when toen while terwijl because omdat since sinds at bij by door on op not niet
last laatste next vooral above most meest especially another some sommige as zoals so dus here hier
there daar you jullie jij u your uw his her zijn haar hun their its however therefore thesis
scriptie master msc bsc mba phd bachelor erasmus rotterdam amsterdam utrecht leiden delft groningen
tilburg eindhoven maastricht nijmegen wageningen den haag hague dordrecht schiedam breda antwerp
antwerpen brussels brussel london paris berlin new york university universiteit netherlands
nederland dutch nederlands nederlandse english engels england engeland europe europa european
europese belgium belgië germany duitsland german france frankrijk french turkey turkije turkish
suriname indonesia indonesië china chinese india indian africa america american january february
march april may june july august september october november december januari februari maart mei juni
juli augustus oktober monday tuesday wednesday thursday friday saturday sunday maandag dinsdag
woensdag donderdag vrijdag zaterdag zondag god gods lord chapter hoofdstuk table tabel figure figuur
appendix bijlage section part deel school faculty faculteit department afdeling institute instituut
research interview respondent interviewee participant deelnemer covid internet email word excel spss
stata google ese rsm eur iss acknowledgements acknowledgments preface dankwoord voorwoord summary
samenvatting abstract introduction inleiding nederlandse hr ceo cfo it ict ngo ngos eu un vn uk usa
us phd's mijns words woorden
"""
NO_NAME = frozenset(_NO_NAME_TEXT.split())
SENTENCE_END = re.compile(
    r"(?<!\b\w)(?<!\b[Dd]r)(?<!\b[Mm]r)(?<!\b[IiMm][rs])(?<!\b[Dd]rs)(?<!\b[Ii]ng)(?<!\b[Mm]rs)(?<!\b[Pp]rof)"
    r"[.!?](?=\s)|\n(?=\W*\d|[•*-])"
)


def without_names(blocks: list[str], config: RedactConfig, counts: Counter[str]) -> list[str]:
    """The blocks of a work, in which the marked ones name nobody; what is replaced is counted."""
    find = ner.model(config.ner_model) if config.names == "ner" and config.ner_model else None
    persons: dict[str, int] = {}
    result = list(blocks)
    for place in marked(blocks):
        spans = list(names_in_text(blocks[place]))
        if find is not None:
            spans += find(blocks[place])
        result[place] = _put(blocks[place], _apart(spans), persons, counts)
    return result


def marked(blocks: list[str]) -> list[int]:
    """The places of the blocks that may name people who are no authors."""
    places, below = [], 0
    front, back = max(12, int(FRONT * len(blocks))), len(blocks) - max(2, int(BACK * len(blocks)))
    for place, block in enumerate(blocks):
        first_line = block.partition("\n")[0]
        if len(first_line) < 80 and HEADING.match(first_line):
            below = BELOW if len(block) < 80 else 1
        elif below and len(block) < 60 and "\n" not in block and not SEQUENCE.search(block[1:]):
            below = 0
        edge = place < front or place >= back
        lower = block.lower()
        strong = any(word in lower for word in STRONG_WORDS) and STRONG_CUE.search(block)
        weak = edge and any(word in lower for word in CUE_WORDS) and CUE.search(block)
        if below or strong or weak:
            places.append(place)
        below = max(0, below - 1)
    return places


def names_in_text(text: str) -> Iterator[Span]:
    """The names in a marked block, by rules."""
    for start, sentence in _sentences(text):
        cue = CUE.search(sentence)
        for found in SEQUENCE.finditer(sentence):
            if CITED.match(sentence, found.end()):
                continue
            begins = not any(map(str.isalpha, sentence[: found.start()]))
            span = _name(found[0], bool(cue), begins)
            if span is not None:
                yield start + found.start() + span[0], start + found.start() + span[1]


def _sentences(text: str) -> Iterator[tuple[int, str]]:
    """(place, text) of sentences; an initial's or a title's full stop ends none."""
    at = 0
    for end in SENTENCE_END.finditer(text):
        yield at, text[at : end.end()]
        at = end.end() + len(text[end.end() :]) - len(text[end.end() :].lstrip())
    yield at, text[at:]


def _name(sequence: str, with_cue: bool, begins: bool) -> Span | None:
    """The part of a capitalised sequence that is a name, or None."""
    if ORGANISATION.search(sequence):
        return _name_beside_organisation(sequence, with_cue)
    words = list(re.finditer(r"\([^)]*\)|[^\s()]+", sequence))
    while words and _is_no_name(words[0][0]):
        words.pop(0)
        begins = False
    while words and (_is_no_name(words[-1][0]) or plain(words[-1][0]) in PREFIXES):
        words.pop()
    if not words:
        return None
    span = words[0].start(), words[-1].end() - len(words[-1][0]) + len(words[-1][0].rstrip("."))
    texts = [plain(word[0]).strip(".()") for word in words]
    if any(text in GIVEN_NAMES or text in TITLE_WORDS for text in texts) and texts[-1] not in TITLE_WORDS:
        return span
    full = [text for text in texts if text not in PREFIXES]
    if len(full) > 1:
        return span
    alone = words[0][0]
    return span if with_cue and not (begins or len(alone) < 3 or alone.isupper()) else None


def _name_beside_organisation(sequence: str, with_cue: bool) -> Span | None:
    """ "Kees Visser Erasmus University": the words before the organisation, when they are a name."""
    found = ORGANISATION.search(sequence)
    before = sequence[: found.start()].rstrip() if found else ""
    full = [word for word in before.split() if plain(word) not in PREFIXES and not _is_no_name(word)]
    known = full and (plain(full[0]).strip(".") in GIVEN_NAMES | TITLE_WORDS or INITIAL.fullmatch(full[0]))
    return _name(before, with_cue, False) if len(full) >= 2 and (known or with_cue) else None


def _is_no_name(word: str) -> bool:
    if INITIAL.fullmatch(word):
        return False
    word = plain(word).strip(".,'’")
    return word in NO_NAME or word.removesuffix("'s").removesuffix("’s") in NO_NAME


def _apart(spans: list[Span]) -> list[Span]:
    """Spans in order, of which those that overlap are one."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def _put(text: str, spans: list[Span], persons: dict[str, int], counts: Counter[str]) -> str:
    """The text with ``[person N]`` for each name; N is that of the first person with that last word."""
    keys = [_key(text[slice(*span)]) for span in spans]
    for key in keys:
        persons.setdefault(key, len(persons) + 1)
    for span, key in zip(reversed(spans), reversed(keys), strict=True):
        text, _ = replace(text, [span], f"[person {persons[key]}]")
    counts[KIND] += len(spans)
    return text


def _key(name: str) -> str:
    """The last word of a name, without accents and the genitive's s."""
    return plain(name).strip(".").split()[-1].removesuffix("'s").removesuffix("’s")
