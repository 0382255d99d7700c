"""Boilerplate: declarations go, paragraphs that only use their words stay."""

from __future__ import annotations

import pytest

from data_prep.boilerplate import drop_boilerplate

KEPT = (
    "Daily stock prices, dividends and the number of shares outstanding were downloaded from "
    "Datastream for all "
    "firms that were listed on the Amsterdam exchange between 2001 and 2015.",
    "The app was downloaded from the store by 412 of the 600 invited patients, of whom 288 used it "
    "for more than "
    "a week. Patients who did not use it were on average six years older than those who did.",
    "The data were downloaded from https://data.example.org in 2019 and merged with the survey by "
    "postal code.",
    "Works under a Creative Commons Attribution licence are cited more often than works that are "
    "not, but the "
    "difference disappears when we control for the field and the age of the journal.",
    "Dit verklaart dat de wachttijd in de grote ziekenhuizen langer is dan in de kleine, ook al "
    "hebben de grote "
    "ziekenhuizen meer personeel per patiënt dan de kleine ziekenhuizen in dezelfde regio hebben.",
    "In terms of use, the two systems hardly differ: the terms of use are read by nobody in either group.",
    "All rights reserved to the shareholders under the articles were listed, and each was coded as a right.",
    "In the terms of use of the platform it is said that no part of the content may be reproduced, which a "
    "third of the respondents did not know.",
    "The author of a written statement is responsible for its contents, says the Civil Code.",
    "De auteur verklaart dat de roman een bekentenis is, en de lezer gelooft hem op de laatste bladzijde.",
    "Old books say “no part of this publication may be reproduced” on the second page, and readers laughed.",
)
DROPPED = (
    "The copyright of the master thesis rests with the author. The author is responsible for its contents.",
    "All rights reserved.",
    "Downloaded from https://repository.example.org on 3 May 2020. Terms of use: see the website.",
    "I hereby declare that this thesis is my own work and that all sources are acknowledged.",
    "Ik verklaar hierbij dat deze scriptie mijn eigen werk is en geen plagiaat bevat. Handtekening:",
    "NON-PLAGIARISM STATEMENT By submitting this thesis the author declares to have written this thesis "
    "completely by himself/herself, and not to have used sources other than the ones mentioned.",
    "Statement of originality: This document is written by the student who declares to take full "
    "responsibility for the contents of this document.",
    "Het auteursrecht van deze scriptie berust bij de auteur. Het werk dat daarin wordt gepresenteerd is "
    "origineel.",
    "De auteur verklaart dat de tekst en het werk in deze scriptie origineel zijn.",
    "Ondergetekende verklaart dat dit werk geheel eigen werk is en dat er geen plagiaat is gepleegd.",
    "The views stated in this thesis are those of the author and not necessarily those of the supervisor.",
    "This work is licensed under a Creative Commons Attribution 4.0 International License.",
    "This document is confidential and may not be distributed without permission.",
    "Niets uit deze uitgave mag worden verveelvoudigd zonder schriftelijke toestemming van de auteur.",
    "© 2019 V. Persoon. All rights reserved. No part of this thesis may be reproduced.",
)


@pytest.mark.parametrize("place", [0, 20])
@pytest.mark.parametrize("text", KEPT)
def test_a_paragraph_that_uses_the_words_stays(text: str, place: int) -> None:
    blocks = ["word " * 30] * 40
    blocks[place] = text
    assert not any(drop_boilerplate(blocks)) and drop_boilerplate([text]) == [""]


@pytest.mark.parametrize("text", DROPPED)
def test_a_declaration_goes(text: str) -> None:
    assert drop_boilerplate([text, *["word " * 30] * 40])[0] == "declaration"
