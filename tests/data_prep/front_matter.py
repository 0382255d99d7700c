"""Front matter of invented works, Dutch and English: covers, acknowledgements, interview lists.

A name is written ``<Name>`` in a template's place holder ``{0}`` to ``{5}``, so that every name of a work is
known. Half of the given names are in the list of the rules (`data_prep.given_names`), half are not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LISTED = (
    "Kees",
    "Marieke",
    "Johan",
    "Fatima",
    "Sanne",
    "Mehmet",
    "Anna",
    "Peter",
    "Ingrid",
    "Daan",
    "Esther",
)
UNLISTED = ("Tjalling", "Wubbo", "Xiomara", "Oluwaseun", "Ngozi", "Þóra", "Jesslyn", "Bibi-Lou", "Radboudt")
PREFIXES = ("", "", "", "van ", "van der ", "de ", "in 't ", "ten ", "el ")
SURNAMES = (
    "Proefman", "Testeling", "Verzonneveld", "Nepmans", "Fictiefsma", "Voorbeeldt", "Schijnburg", "Zomaaris",
    "Bedachtmans", "Modelaer", "Şakacı", "Quasinga",
)  # fmt: skip
FORMS = ("{given} {prefix}{surname}", "{given} {prefix}{surname}", "{initial}. {prefix}{surname}",
         "dr. {initial}. {prefix}{surname}", "prof. dr. {given} {prefix}{surname}")  # fmt: skip

TEMPLATES = (
    # English
    "Acknowledgements\nFirst of all, I would like to thank my supervisor {0} for the guidance and the "
    "patience. "
    "I also thank {1} and {2} for their comments on earlier versions, and my parents for their support.",
    "Preface\nThis thesis marks the end of my time in Rotterdam. Many thanks to {0}, {1} and {2}, who "
    "read every "
    "chapter. Without {3} the survey would not have been possible.",
    "I am grateful to {0} of the Erasmus School of Economics for supervising this thesis. Special thanks "
    "go to my "
    "girlfriend {4}, to {1}, and to everybody at the Ministry of Finance who took part in the survey.",
    "Acknowledgments\nI want to express my gratitude to {0} and to my second reader, {1}. My friends {4}, "
    "{5} and "
    "{2} kept me sane. Thank you, {3}, for the coffee.",
    "I would like to thank my supervisor, {0}, for his valuable feedback. Furthermore, I thank {1}, who "
    "helped with "
    "the data from Statistics Netherlands. Last but not least, I thank my brother {4}.",
    "We sincerely thank {0} and {1} for the opportunity to do this research at the hospital. We also "
    "thank {2}.",
    "List of interviewees\n1. {0}, policy officer, Municipality of Schiedam\n2. {1}, director\n3. {2}, nurse",
    "Foreword\nWriting this thesis was a long journey. My supervisor {0} was always there. {1} and {2} "
    "gave me a "
    "desk at their company. I dedicate this thesis to my grandmother {3}.",
    "My gratitude goes to {0}, without whose help this would not have been written. I also owe much to {1}.",
    "I thank {0} for the supervision, {1} for access to the archive, and {2} for proofreading. All errors "
    "are mine.",
    # Dutch
    "Dankwoord\nAllereerst wil ik mijn begeleider {0} bedanken voor de goede gesprekken. Ook dank ik {1} "
    "en {2} "
    "voor het meelezen, en mijn ouders voor hun steun.",
    "Voorwoord\nVoor u ligt mijn scriptie. Ik dank {0}, {1} en {2} voor hun hulp. Zonder {3} was dit niet "
    "gelukt.",
    "Graag bedank ik {0} van de Erasmus Universiteit voor de begeleiding. Mijn bijzondere dank gaat uit "
    "naar mijn "
    "vriendin {4} en naar {1}, en naar iedereen bij het Ministerie van Financiën die meedeed.",
    "Woord vooraf\nDeze scriptie is het einde van mijn studie in Rotterdam. Mijn dank gaat uit naar {0} "
    "en naar de "
    "tweede lezer, {1}. Ook {4}, {5} en {2} wil ik bedanken. {3}, bedankt voor de koffie!",
    "Hierbij wil ik mijn begeleider, {0}, bedanken voor de waardevolle opmerkingen. Daarnaast dank ik "
    "{1}, die met "
    "de gegevens van het CBS heeft geholpen. Tot slot bedank ik mijn broer {4}.",
    "Wij danken {0} en {1} hartelijk voor de kans om dit onderzoek in het ziekenhuis te doen. Ook danken "
    "wij {2}.",
    "Overzicht van geïnterviewden\n1. {0}, beleidsmedewerker, gemeente Schiedam\n2. {1}, directeur\n3. "
    "{2}, arts",
    "Voorwoord\nHet schrijven was een lange weg. Mijn begeleider {0} stond altijd klaar. {1} en {2} gaven "
    "mij een "
    "plek bij hun bedrijf. Deze scriptie is opgedragen aan mijn oma {3}.",
    "Mijn dank gaat uit naar {0}, zonder wie dit er niet was gekomen. Ook aan {1} ben ik veel dank "
    "verschuldigd.",
    "Ik bedank {0} voor de begeleiding, {1} voor de toegang tot het archief en {2} voor het nalezen.",
)
STAYS = (
    "The results of Modelman (2012) are confirmed by Nepman et al. (2015), who use data of the World Bank "
    "and find "
    "no effect in the Netherlands or in Germany, but a small one in the United Kingdom and in France.",
    "In 2010 werd de wet in Den Haag aangenomen; de Tweede Kamer en de Raad van State waren het daar over "
    "eens, "
    "schrijft Voorbeeldman (2011), en ook de gemeente Rotterdam was vóór.",
)


@dataclass(frozen=True)
class FrontMatter:
    """One work: its blocks, the words of names that must go, and the blocks that must not change."""

    blocks: list[str]
    names: list[str]
    stays: list[str]


def works(count: int = 80, seed: int = 11) -> list[FrontMatter]:
    """Invented front matter; every template comes as often as every other."""
    generator = random.Random(seed)
    return [_work(TEMPLATES[number % len(TEMPLATES)], generator) for number in range(count)]


def _work(template: str, generator: random.Random) -> FrontMatter:
    surnames = generator.sample(SURNAMES, 6)
    names, secret = [], []
    for place, surname in enumerate(surnames):
        given = generator.choice(LISTED + UNLISTED)
        alone = place >= 4  # friends and family are thanked by their given name
        form = "{given}" if alone else generator.choice(FORMS)
        names.append(
            form.format(given=given, initial=given[0], prefix=generator.choice(PREFIXES), surname=surname)
        )
        if f"{{{place}}}" in template:
            secret.append(given if alone else surname)
            if "{given}" in form:
                secret.append(given)
    text = template.format(*names)
    blocks = ["A title of a thesis\nRotterdam, 2019", text, *STAYS]
    return FrontMatter(blocks, secret, list(STAYS))
