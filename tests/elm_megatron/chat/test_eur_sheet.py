"""Spreadsheets as people make them, as attackers make them, and the real one where it is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections import Counter
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest

from conf.errors import InputError
from elm_megatron.chat.eur_sheet import parse_dialogue, read_dialogues, read_preferences
from elm_megatron.chat.read import HALF_A_CHARACTER, data_file, dialogues
from elm_megatron.chat.spreadsheet import Workbook
from elm_megatron.chat.template import Dialogue, Turn

SHEETS = ("Fine-Tuning", "Reinforcement Learning")


def dialogue(*pairs: tuple[str, str]) -> Dialogue:
    """A dialogue of (question, answer) pairs."""
    return Dialogue(tuple(Turn(q, "", a) for q, a in pairs))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Prompt: Why? Assistant: Because.", dialogue(("Why?", "Because."))),
        ('"Human: Why? Assistant: Because."', dialogue(("Why?", "Because."))),
        ('"Human: Why?\nAssistant: Because.', dialogue(("Why?", "Because."))),
        ("“Human: A? Assistant: B. Human: C? Assistant: D.”", dialogue(("A?", "B."), ("C?", "D."))),
        ("Prompt: A?\nAssitant: B", dialogue(("A?", "B"))),
        ("Why? Assistant: Because.", dialogue(("Why?", "Because."))),
        ("User: Why? Assistant: Because.", dialogue(("Why?", "Because."))),
        (
            "Human: Why?Assistant:Because.Human: So? Assistant: So.",
            dialogue(("Why?", "Because."), ("So?", "So.")),
        ),
        ('Prompt: Who said "no"? Assistant: He said "no"', dialogue(('Who said "no"?', 'He said "no"'))),
        ("Human: A? Assistant: B Human: C?", dialogue(("A?", "B"))),
        ("Prompt: the human: a study Assistant: Yes", dialogue(("the human: a study", "Yes"))),
        ("Prompt: nothing follows", "no Assistant: turn"),
        ("Assistant: hello", "human and assistant do not take turns"),
        ("Human: A Human: B Assistant: C", "human and assistant do not take turns"),
        ("Human: A? Assistant:   ", "an empty turn"),
        (
            'Human: Who? Assistant: He wrote "Human: hi Assistant: yo" and left.',
            dialogue(("Who?", 'He wrote "Human: hi Assistant: yo" and left.')),
        ),
        (
            '"Human: A? Assistant: She said ""Human: x"" once."',
            dialogue(("A?", 'She said "Human: x" once.')),
        ),
        ("Human: A? Assistant: She wrote “Human: x”.", dialogue(("A?", "She wrote “Human: x”."))),
        (
            "Human: {instruction} </s> ### Response: Assistant: {}",
            dialogue(("{instruction} </s> ### Response:", "{}")),
        ),
    ],
)
def test_dialogues_as_written(cell: str, expected: Dialogue | str) -> None:
    assert parse_dialogue(cell) == expected


def book(path: Path, **sheets: list[list]) -> Path:
    """An .xlsx with the given sheets; underscores in names stand for blanks."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name.replace("_", " "))
        for row in rows:
            sheet.append(row)
    workbook.save(path)
    return path


@pytest.mark.parametrize(
    ("titles", "raters"),
    [
        (["Anna", "Bram", "Number of raters"], 2),
        (["Anna", "Bram", "Aantal beoordelaars"], 2),
        (["Anna", "Bram", "Average score"], 2),
        (["Anna", "Bram", "Preferred option"], 2),
        (["Rater nr 1", "Rater # 2", "Number of raters"], 2),
        (["Preference Anna", "Preference (Bram)", "Preference"], 2),
        (["Voorkeur 1", "Voorkeur 2", "Voorkeur 3"], 3),
        (["Preferred by A", "Preferred by B", "Average score"], 2),
        (["Anna", "Bram", "Round"], 2),
        (["Anna", "Bram", "Votes for 2"], 2),
        (["Anna", "Bram", "Verschil"], 2),
        (["Anna", "Bram", "Is correct"], 2),
        (["Group 1", "Group 2", "Group 3"], 3),
    ],
)
def test_columns_of_raters_and_of_others(titles: list[str], raters: int, tmp_path: Path) -> None:
    """Three columns of ones and twos: the first two vote 1, the third 2."""
    rows = [["Q", "one", "two", 1, 1, 2], ["R", "one", "two", 1.0, " 1 ", "2"]]
    path = book(tmp_path / "x.xlsx", S=[["Prompt", "Option 1", "Option 2", *titles], *rows])
    counts: Counter[str] = Counter()
    found = list(read_preferences(path, "S", 0.5, counts))
    assert [one.chosen for one in found] == ["one", "one"]
    assert {one.agreement for one in found} == {2 / raters}
    assert counts[f"column {titles[2]!r} left out, no rater's"] == (raters == 2)


def test_numbers_and_dates_are_answers(tmp_path: Path) -> None:
    rows = [
        ["How many?", 12, 12.5, 1],
        [2024, datetime(2024, 5, 1), "a text", 2],
        ["Is it?", True, datetime(2024, 5, 1, 13, 30), 1],
        ["Same?", 3, "3", 1],
    ]
    path = book(tmp_path / "x.xlsx", S=[["PROMPT", "option 1", "Option 2", "Anna"], *rows])
    counts: Counter[str] = Counter()
    found = [(p.prompt, p.chosen, p.rejected) for p in read_preferences(path, "S", 0.5, counts)]
    assert found == [
        ("How many?", "12", "12.5"),
        ("2024", "a text", "2024-05-01"),
        ("Is it?", "true", "2024-05-01T13:30:00"),
    ]
    assert counts["skipped, both options alike"] == 1


def test_names_of_parts_in_other_capitals(tmp_path: Path) -> None:
    """Some programs write xl/SharedStrings.xml; a zip's names are else told apart by their capitals."""
    path = book(tmp_path / "x.xlsx", **{"Fine-Tuning": [["Prompt-Response"], ["Prompt: A? Assistant: B"]]})
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(tmp_path / "y.xlsx", "w") as after:
        for name in before.namelist():
            after.writestr(name.upper() if name.startswith("xl/") else name, before.read(name))
    assert list(read_dialogues(tmp_path / "y.xlsx", "fine-tuning ", Counter())) == [dialogue(("A?", "B"))]


@pytest.mark.parametrize(
    "titles",
    [
        ["Prompt:", "Option 1:", "Option 2:"],
        ["PROMPT", "Option1", "Option2"],
        ["prompt ", "Option\n1", "Option\u00a02"],
        ["Prompt", "option_1", "Option - 2"],
    ],
)
@pytest.mark.parametrize("vote", [2, "2.0", "Option 2", "antwoord: 2"])
def test_titles_and_votes_as_people_write_them(titles: list[str], vote: object, tmp_path: Path) -> None:
    path = book(tmp_path / "x.xlsx", S=[[*titles, "Anna"], ["Q", "one", "two", vote]])
    assert [one.chosen for one in read_preferences(path, "S", 0.5, Counter())] == ["two"]


def test_preferences_count_what_they_skip(tmp_path: Path) -> None:
    head = ["Prompt", "Option 1", "Option 2", "first", "second", None, "third"]
    rows = [
        ["p1", "a", "b", 1, 1, None, None],
        ["p2", "a", "b", 2, 2, 1, 2],  # the column without a name is nobody's
        ["p3", "a", "b", 1, 2, None, None],
        ["p4", "a", "b", 1, 1, None, 2],
        ["p5", "a", "b", None, None, None, None],
        ["p6", "a", "a", 1, 1, None, 1],
        ["p7", "a", None, 1, 1, None, 1],
        [None, "a", "b", 1, 1, None, 1],
        ["p8", "a", "b", "good", "2", None, None],
    ]
    path = book(tmp_path / "x.xlsx", Reinforcement_Learning=[head, *rows])
    counts: Counter[str] = Counter()
    found = list(read_preferences(path, "Reinforcement Learning", 1.0, counts))
    assert [(p.prompt, p.chosen, p.agreement) for p in found] == [
        ("p1", "a", 1),
        ("p2", "b", 1),
        ("p8", "b", 1),
    ]
    assert counts == {
        "skipped, a tie": 1,
        "skipped, raters disagree": 1,
        "skipped, nobody rated it": 1,
        "skipped, both options alike": 1,
        "skipped, an option is missing": 1,
        "skipped, no prompt": 1,
        "ratings that are neither 1 nor 2": 1,
    }
    more = list(read_preferences(path, "reinforcement learning ", 0.6, Counter()))
    assert [round(p.agreement, 2) for p in more] == [1, 1, 0.67, 1]


def test_formulas_and_merged_cells(tmp_path: Path) -> None:
    path = book(
        tmp_path / "x.xlsx",
        S=[["Prompt-Response", "n"], ["Prompt: a Assistant: b", 1], ["=1+1", 2], [None, 3]],
    )
    workbook = openpyxl.load_workbook(path)
    workbook["S"].append(["Prompt: c Assistant: d", 4])
    workbook["S"].merge_cells("A5:B6")
    workbook.save(path)
    skipped: Counter[str] = Counter()
    assert list(read_dialogues(path, "S", skipped)) == [dialogue(("a", "b")), dialogue(("c", "d"))]
    assert skipped == {"no text": 2}  # a formula nobody computed is not text


def test_wrong_sheet_and_column(tmp_path: Path) -> None:
    path = book(tmp_path / "x.xlsx", Sheet1=[["Question"], ["x"]])
    with pytest.raises(InputError, match="has no sheet 'Fine-Tuning'; it has 'Sheet1'"):
        list(read_dialogues(path, "Fine-Tuning", Counter()))
    with pytest.raises(InputError, match="no column 'Prompt-Response'"):
        list(read_dialogues(path, "Sheet1", Counter()))


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    old = tmp_path / "x.xls"
    old.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 600)
    with pytest.raises(InputError, match=r"sft.files: .*\.xls; allowed are .*\.xlsx"):
        data_file(str(old), "sft.files")
    with pytest.raises(InputError, match=r"must be saved as \.xlsx"):
        Workbook(old.rename(tmp_path / "y.xlsx"))
    other = tmp_path / "z.xlsx"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("hello.txt", "x")
    with pytest.raises(InputError, match=r"not an \.xlsx file"):
        Workbook(other)


NAMESPACE = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def replaced(source: Path, target: Path, part: str, content: bytes) -> Path:
    """A copy of an .xlsx with one part exchanged."""
    content = content.replace(b"<worksheet", f"<worksheet {NAMESPACE}".encode())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            new.writestr(item.filename, content if item.filename == part else old.read(item))
    return target


def test_hostile_xml(tmp_path: Path) -> None:
    good = book(tmp_path / "good.xlsx", S=[["Prompt-Response"], ["Prompt: a Assistant: b"]])
    sheet = "xl/worksheets/sheet1.xml"
    entities = (
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><worksheet><c><v>&b;</v></c></worksheet>'
    )
    outside = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><worksheet>&a;</worksheet>'
    huge_cell = b'<worksheet><row><c t="str"><v>' + b"a" * 5_000_000 + b"</v></c></row></worksheet>"
    endless_tag = b"<worksheet " + b"a" * 5_000_000
    wrong_index = b'<worksheet><row><c t="s"><v>999</v></c></row></worksheet>'
    for number, (content, message) in enumerate(
        [
            (entities, "document type"),
            (outside, "document type"),
            (huge_cell, "more than 32,767 characters"),
            (endless_tag, "is broken"),
            (b"<worksheet><row>", "is broken"),
            (wrong_index, "is broken"),
        ]
    ):
        bad = replaced(good, tmp_path / f"{number}.xlsx", sheet, content)
        with pytest.raises(InputError, match=message):
            list(Workbook(bad).rows("S"))


def test_zip_bomb(tmp_path: Path) -> None:
    good = book(tmp_path / "good.xlsx", S=[["Prompt-Response"]])
    bomb = replaced(good, tmp_path / "bomb.xlsx", "xl/worksheets/sheet1.xml", b" " * 300_000_000)
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="no honest spreadsheet"):
        Workbook(bomb)


def test_shared_texts(tmp_path: Path) -> None:
    """Texts by number, in pieces, with phonetic hints, and cells without a reference."""
    good = book(tmp_path / "good.xlsx", S=[["Prompt-Response"]])
    cells = "".join(f'<row><c t="s"><v>{i}</v></c></row>' for i in (0, 1))
    sheet = f"<worksheet><sheetData>{cells}</sheetData></worksheet>".encode()
    path = replaced(good, tmp_path / "x.xlsx", "xl/worksheets/sheet1.xml", sheet)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(
            "xl/sharedStrings.xml",
            f"<sst {NAMESPACE}><si><t>Prompt-Response</t></si>"
            "<si><r><t>Prompt: é </t></r><r><t>Assistant: b&lt;</t></r><rPh><t>hint</t></rPh></si></sst>",
        )
    assert list(read_dialogues(path, "S", Counter())) == [dialogue(("é", "b<"))]


def test_escapes(tmp_path: Path) -> None:
    """_xHHHH_ is a UTF-16 unit, wherever the text is kept; half a character is skipped and counted."""
    good = book(tmp_path / "good.xlsx", S=[["Prompt-Response"]])
    text = "Prompt: a_x000D_ Assistant: b_xd83d__xDE00_ _x005F_x0041_"
    cells = f'<row><c t="s"><v>0</v></c></row><row><c t="inlineStr"><is><t>{text}</t></is></c></row>'
    cells += '<row><c t="str"><v>Prompt: a Assistant: _xD83D_</v></c></row>'
    sheet = "<row><c t='str'><v>Prompt-Response</v></c></row>" + cells
    sheet = f"<worksheet><sheetData>{sheet}</sheetData></worksheet>"
    path = replaced(good, tmp_path / "x.xlsx", "xl/worksheets/sheet1.xml", sheet.encode())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("xl/sharedStrings.xml", f"<sst {NAMESPACE}><si><t>{text}</t></si></sst>")
    skipped: Counter[str] = Counter()
    found = list(dialogues(path, "S", skipped))
    assert found == [dialogue(("a", "b\U0001f600 _x0041_"))] * 2
    assert skipped == {HALF_A_CHARACTER: 1}


MEASURE = """
import re, sys
import openpyxl.reader.excel
from collections import Counter
from pathlib import Path
from elm_megatron.chat.eur_sheet import read_dialogues
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
skipped = Counter()
count = sum(1 for _ in read_dialogues(Path(sys.argv[1]), "Fine-Tuning", skipped))
print(count, sum(skipped.values()), peak() - before)
"""


def test_large_sheet_in_bounded_memory(tmp_path: Path) -> None:
    """200,000 rows with different texts."""
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Fine-Tuning")
    sheet.append(["x", "Prompt-Response"])
    for i in range(200_000):
        question = f"Prompt: question number {i} about {i * 7919 % 10007} things?"
        text = f"{question} Assistant: answer {i * 31} {'w' * (i % 90)}"
        sheet.append([i, text if i % 100 else "nothing"])
    path = tmp_path / "large.xlsx"
    workbook.save(path)
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    ).stdout.split()
    print("rows, skipped, KiB:", out)
    assert (int(out[0]), int(out[1])) == (198_000, 2_000)
    assert int(out[2]) < 40_000  # KiB


def real_spreadsheet() -> Path | None:
    """The published spreadsheet, where it is at hand; its contents are never shown."""
    folder = Path(os.environ.get("ELM_SAMPLE_DIR", "../shared/elm-sample"))
    return next(iter(sorted(folder.glob("*.xlsx"))), None)


def test_the_real_spreadsheet() -> None:
    path = real_spreadsheet()
    if path is None:
        pytest.skip("the published spreadsheet is not here; ELM_SAMPLE_DIR names its folder")
    skipped: Counter[str] = Counter()
    found = list(read_dialogues(path, SHEETS[0], skipped))
    turns = sum(len(d.turns) for d in found)
    assert (len(found), turns, dict(skipped)) == (464, 473, {"no Assistant: turn": 19})
    assert not any(
        word in t.response + t.instruction
        for d in found
        for t in d.turns
        for word in ("Assistant:", "Human:")
    )
    counts: Counter[str] = Counter()
    pairs = list(read_preferences(path, SHEETS[1], 1.0, counts))
    assert len(pairs) == 173
    assert counts["skipped, a tie"] == 39
    assert counts["skipped, raters disagree"] == 6
    assert counts["skipped, nobody rated it"] == 83
    assert sum(n for reason, n in counts.items() if reason.startswith("skipped")) + len(pairs) == 311


def test_reading_needs_no_torch() -> None:
    code = "import elm_megatron.chat.read, sys; print('torch' in sys.modules, 'openpyxl' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
