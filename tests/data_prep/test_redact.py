import pytest

from conf.schema.preprocess import RedactConfig
from data_prep.redact import is_citizen_number, is_iban, redact

# The numbers are the customary examples of their kind, which pass the checksum, or plainly made up.


def counts(*blocks):
    return redact(list(blocks), RedactConfig())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Mail to a.b-c@students.example.nl today", "e-mail"),
        ("Mail {first,second}@example.org", "e-mail"),
        ("Mail someone (at) example.nl", "e-mail"),
        ("Mail " + "x" * 64 + "@example.nl", "e-mail"),
        ("Bel 010-408 1111 of later", "phone"),
        ("Call +31 (0)10 408 1111 now", "phone"),
        ("Bel 06 12 34 56 78.", "phone"),
        ("Rekening NL91 ABNA 0417 1643 00 graag", "IBAN"),
        ("Rekening NL91 ABNA 0417 1643 00 OF CONTANT", "IBAN"),
        ("Account GB82WEST12345698765432.", "IBAN"),
        ("BSN: 1112.22.333", "citizen number"),
        ("nummer 111222333 staat", "citizen number"),
        ("Student number: 123456", "student number"),
        ("Studentnummer 654321ab", "student number"),
        ("Student ID number: 123456", "student number"),
        ("Student ID: 123456", "student number"),
    ],
)
def test_each_kind_is_found_and_gone(text, kind):
    (result,), found = counts(text)
    assert found == {kind: 1}
    assert f"[{kind}]" in result
    assert not any(char.isdigit() for char in result.replace("[IBAN]", "")) and "@" not in result


def test_one_address_that_sticks_to_another():
    assert counts("a@eur.nl_b@eur.nl,c@eur.nl.d@eur.nl")[1] == {"e-mail": 4}


@pytest.mark.parametrize(
    "text", ["NL91ABNA0417164300 BE68539007547034", "NL91 ABNA 0417 1643 00 NL02 ABNA 0123 4567 89"]
)
def test_one_iban_behind_another(text):
    (result,), found = counts(text)
    assert (result, found) == ("[IBAN] [IBAN]", {"IBAN": 2})
    assert counts("Kamer XY12 NL91 ABNA 0417 1643 00 OF") == (["Kamer XY12 [IBAN] OF"], {"IBAN": 1})


@pytest.mark.parametrize(
    "text",
    [
        "In 2020 there were 1,234,567 inhabitants and 0.123456789 of them",
        "Table 3: 123456789 123 456",  # nine digits that fail the eleven test
        "ISBN 978-90-5170-123-4, pp. 1001-1002, doi 10.1000/182.12345678901",
        "GDP rose from 1980 to 2010 by 3.5% (N = 1234)",
        "at example.nl there is a page",
        "NL00 ABNA 9417 1643 00",
    ],
)
def test_numbers_of_science_stay(text):
    (result,), found = counts(text)
    assert result == text and not found


def test_names_on_the_cover_go_wherever_the_work_repeats_them():
    cover = (
        "A title\nStudent name: Voorbeeld Persoon\nStudent number: 123456\nSupervisor:\nDr. T. van der Proef"
    )
    body = "I thank T. van der\nProef for reading. Voorbeeld Persoon, 123456, wrote this; persoon stays."
    blocks, found = counts(cover, body)
    text = " ".join(blocks)
    for value in ("Voorbeeld Persoon", "123456", "Proef"):
        assert value not in text
    assert found["name"] == 4 and found["student number"] == 2
    assert "persoon stays" in text


@pytest.mark.parametrize(
    "label", ["by", "Door:", "Submitted by", "Name student:", "Second assessor:", "Auteur"]
)
def test_the_name_may_stand_on_the_line_below_its_label(label):
    blocks, found = counts(f"A title\n{label}\nVoorbeeld Persoon\nRotterdam")
    assert found == {"name": 1} and "Persoon" not in blocks[0]


@pytest.mark.parametrize(
    "line", ["Supervisor: Erasmus School of Economics", "by\nErasmus University Rotterdam"]
)
def test_an_organisation_on_the_cover_is_no_person(line):
    assert counts(f"A title\n{line}\nRotterdam")[1] == {}


def test_a_label_in_running_text_names_nobody():
    line = (
        "The author: it is often said that no such person exists at all in the theory of the implied reader"
    )
    assert counts(line)[0] == [line]


def test_every_rule_can_be_switched_off():
    text = (
        "Student name: Voorbeeld Persoon\na@b.nl 010-4081111 NL91ABNA0417164300 BSN 111222333 studentnr 12345"
    )
    off = RedactConfig(**dict.fromkeys(vars(RedactConfig()), False))
    assert redact([text], off) == ([text], {})


def test_checksums():
    assert is_citizen_number("111222333") and not is_citizen_number("111222334")
    assert not is_citizen_number("000000000")
    assert is_iban("NL91ABNA0417164300") and not is_iban("NL91ABNA0417164301")
