"""What only a person knows of a published model: the answers of the institution that publishes it.

The published documents take every other statement from the records of the runs and of the data. A key that is
null or empty is listed in them as missing. A site is one YAML in `conf/institution/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from conf.limits import Fits

CATEGORIES = ("public", "licensed", "private", "crawled", "user", "synthetic", "other")
Category = Literal["public", "licensed", "private", "crawled", "user", "synthetic", "other"]
Day = Annotated[str, Fits(r"\d{4}-\d{2}-\d{2}", "a day as YYYY-MM-DD")]


@dataclass
class Institution:
    """The institution that publishes. A key that does not apply says so in words, such as `none`.

    Attributes:
        name: legal name of the institution.
        address: its postal address.
        website: its web address.
        contact: address for questions about the model and its data.
        representative: its authorised representative in the European Union, or why it needs none.
        copyright_contact: address where rightsholders complain or ask for removal.
        privacy_contact: address of the data protection officer.
        sources: what each source of works, or file of chat data, is, by its name: public, licensed, private,
            crawled, user, synthetic or other; a source that was harvested is crawled.
        code_of_practice: whether it has signed the code of practice for general-purpose AI models.
        opt_out: how it respects reservations of rights, besides what the software does.
        illegal_content: how illegal content is kept out of the training data.
        purpose: for which purpose the dataset was made.
        funding: who paid for it.
        consent: what the people in the data were told or asked, and how they can object.
        personal_data: which personal or sensitive data the works may hold.
        biases: known biases of the data.
        limitations: known limits of the data and uses that are not recommended.
        social_impact: what the data and the model may do to people.
        maintenance: who keeps the dataset, and when it is brought up to date.
        annotators: who wrote or rated the chat data.
        release_date: when the model was first released.
        union_date: when it was placed on the market of the European Union.
        distribution: through which channels it is distributed.
        acceptable_use: web address of the acceptable use policy, or `none`.
        intended_uses: what it is meant for.
        restricted_uses: what it may not be used for.
        integration: into which kinds of AI systems it can be put.
        rationale: why the model and its training were designed so.
    """

    name: str | None = None
    address: str | None = None
    website: str | None = None
    contact: str | None = None
    representative: str | None = None
    copyright_contact: str | None = None
    privacy_contact: str | None = None
    sources: dict[str, Category] = field(default_factory=dict)
    code_of_practice: bool | None = None
    opt_out: str | None = None
    illegal_content: str | None = None
    purpose: str | None = None
    funding: str | None = None
    consent: str | None = None
    personal_data: str | None = None
    biases: str | None = None
    limitations: str | None = None
    social_impact: str | None = None
    maintenance: str | None = None
    annotators: str | None = None
    release_date: Day | None = None
    union_date: Day | None = None
    distribution: list[str] = field(default_factory=list)
    acceptable_use: str | None = None
    intended_uses: str | None = None
    restricted_uses: str | None = None
    integration: str | None = None
    rationale: str | None = None

    def missing(self) -> list[str]:
        """The keys without an answer; the sources are asked for one by one where a document shows them."""
        return [
            item.name
            for item in fields(self)
            if item.name != "sources" and getattr(self, item.name) in (None, "", [])
        ]
