"""Languages: a small labelled set, of which the neighbours of Dutch are the hard part."""

from __future__ import annotations

import pytest

from data_prep.language import identify

LABELLED = {
    "da": "Vi har undersøgt hvordan kommunerne har reageret på de nye regler, og det viser sig at "
    "der er stor "
    "forskel på de store og de små kommuner. Det er ikke kun et spørgsmål om penge.",
    "nb": "Vi har undersøkt hvordan kommunene har reagert på de nye reglene, og det viser seg at det er stor "
    "forskjell på de store og de små kommunene. Det er ikke bare et spørsmål om penger.",
    "nn": "Vi har undersøkt korleis kommunane har reagert på dei nye reglane, og det viser seg at "
    "det er stor "
    "skilnad på dei store og dei små kommunane. Det er ikkje berre eit spørsmål om pengar.",
    "sv": "Vi har undersökt hur kommunerna har reagerat på de nya reglerna, och det visar sig att "
    "det är stor "
    "skillnad mellan de stora och de små kommunerna. Det är inte bara en fråga om pengar.",
    "af": "Ons het ondersoek hoe die munisipaliteite op die nuwe reëls gereageer het, en dit blyk "
    "dat daar 'n "
    "groot verskil tussen die groot en die klein munisipaliteite is. Dit is nie net geld nie.",
    "fy": "Wy hawwe ûndersocht hoe't de gemeenten op de nije regels reagearre hawwe, en it docht bliken dat "
    "der in grut ferskil is tusken de grutte en de lytse gemeenten. It is net allinnich jild.",
    "lb": "Mir hunn ënnersicht, wéi d'Gemengen op déi nei Reegelen reagéiert hunn, an et weist sech, datt et "
    "e groussen Ënnerscheed tëscht de groussen an de klenge Gemenge gëtt.",
    "de": "Wir haben untersucht, wie die Gemeinden auf die neuen Regeln reagiert haben, und es zeigt sich, "
    "dass es einen großen Unterschied zwischen den großen und den kleinen Gemeinden gibt.",
    "fr": "Nous avons étudié comment les communes ont réagi aux nouvelles règles, et il s'avère "
    "qu'il y a une "
    "grande différence entre les grandes et les petites communes.",
    "id": "Kami telah meneliti bagaimana pemerintah kota bereaksi terhadap aturan baru, dan ternyata ada "
    "perbedaan besar antara kota besar dan kota kecil.",
    "nl": "We hebben onderzocht hoe de gemeenten op de nieuwe regels hebben gereageerd, en het blijkt dat er "
    "een groot verschil is tussen de grote en de kleine gemeenten. Het is niet alleen geld.",
    "en": "We studied how the municipalities responded to the new rules, and it turns out that there is a "
    "large difference between the large and the small ones. It is not only a matter of money.",
    "en, clipped": "Went home. Didn't sleep much; kept thinking about what he said, how I'd looked, why "
    "nobody called. Got up, made coffee, sat by window. Should've gone back. Mother told me I'd regret it.",
    "nl, clipped": "Thuis. Slecht geslapen, steeds gedacht aan wat hij zei. Opgestaan, koffie, raam. Had "
    "terug moeten gaan. Moeder zei altijd dat ik daar spijt van zou krijgen. Misschien wel.",
}


@pytest.mark.parametrize("label", LABELLED)
def test_a_paragraph_is_told_from_its_neighbours(label: str) -> None:
    expected = label[:2] if label[:2] in ("nl", "en") else "other"
    assert identify(LABELLED[label]) == expected
    assert identify(f"{LABELLED[label]}\n" * 300) == expected


def test_a_dutch_summary_does_not_decide_on_an_english_work() -> None:
    assert identify(LABELLED["nl"] * 10 + LABELLED["en"] * 100) == "en"


@pytest.mark.parametrize("text", ["", "1 2 3 x y z", "2019 1234 5678 " * 60, "∑∫√≈x ∂y≤≥z∞ " * 60])
def test_tables_and_formulas_are_in_no_language(text: str) -> None:
    assert identify(text) == "other"
