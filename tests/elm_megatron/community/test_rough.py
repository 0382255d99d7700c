"""What goes wrong around the pages: two at once, slow servers, strange forms, broken files beside the app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from conf.errors import InputError
from conf.schema.community import CommunityConfig
from elm_megatron.community import database, identity, items, model_client
from elm_megatron.community.command import SQLITE, community_command
from elm_megatron.community.export import export
from elm_megatron.community.tables import Comparison, Item, Person, Report, Review, Vote
from elm_megatron.community.visit import COOKIE
from tests.elm_megatron.community.conftest import Community


def accepted(community: Community, item: int) -> None:
    for _ in range(items.REVIEWS):
        community.person("reviewer").agree().post("/review", item=str(item), verdict="accept")


def test_the_same_review_twice_at_once_is_a_page(
    community: Community, monkeypatch: pytest.MonkeyPatch
) -> None:
    community.person().agree().give("Question", "Answer")
    reviewer = community.person("reviewer").agree()
    real = items.review

    def beside_another(database: object, person: Person, item_id: int, *given: object) -> Item:
        item = database.get(Item, item_id)
        assert not item.reviews  # as this one reads it, before the other is stored
        with community.sessions() as other:
            other.add(Review(item_id=item_id, person_id=person.id, accepts=True, labels=[]))
            other.commit()
        return real(database, person, item_id, *given)

    monkeypatch.setattr(items, "review", beside_another)
    page = reviewer.post("/review", 409, item="1", verdict="accept")
    assert "once" in page
    with community.sessions() as stored:
        assert len(list(stored.scalars(select(Review)))) == 1


async def _all_waiting(community: Community, cookies: list[dict[str, str]], path: str) -> int:
    """Connections in use while as many people wait for a model."""
    begun, over = 0, asyncio.Event()

    async def slow(*_: object) -> str:
        nonlocal begun
        begun += 1
        await over.wait()
        return "An answer"

    transport = httpx.ASGITransport(app=community.app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_client, "answer", slow)
        async with httpx.AsyncClient(transport=transport, base_url="https://elm.test") as client:

            async def one(cookie: dict[str, str]) -> int:
                form = {"csrf": cookie["csrf"], "prompt": "Question", "question": "Question"}
                sent = {"cookie": f"{COOKIE}={cookie[COOKIE]}"}
                return (await client.post(path, data=form, headers=sent)).status_code

            waiting = [asyncio.create_task(one(cookie)) for cookie in cookies]
            while begun < len(cookies) and not any(task.done() for task in waiting):
                await asyncio.sleep(0.01)
            held = community.engine.pool.checkedout()
            over.set()
            assert set(await asyncio.gather(*waiting)) == {200}
    return held


@pytest.mark.parametrize("path", ["/ask", "/compare"])
def test_who_waits_for_a_model_holds_no_connection(path: str, community: Community) -> None:
    people = [community.person().agree() for _ in range(3)]
    cookies = [{"csrf": one.csrf(), COOKIE: one.client.cookies[COOKIE]} for one in people]
    assert asyncio.run(_all_waiting(community, cookies, path)) == 0


def test_a_form_that_comes_slowly_holds_no_connection(community: Community) -> None:
    person = community.person().agree()
    headers = {
        "cookie": f"{COOKIE}={person.client.cookies[COOKIE]}",
        "content-type": "application/x-www-form-urlencoded",
    }
    held = []

    async def slowly() -> AsyncIterator[bytes]:
        yield b"csrf=wrong"
        held.append(community.engine.pool.checkedout())
        yield b"&prompt=x"

    async def send() -> int:
        transport = httpx.ASGITransport(app=community.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://elm.test") as client:
            return (await client.post("/write", content=slowly(), headers=headers)).status_code

    assert asyncio.run(send()) == 403
    assert held == [0]


def test_a_restored_text_with_all_its_reviews_is_settled(community: Community) -> None:
    community.person().agree().give("Question", "Answer")
    accepted(community, 1)
    moderator = community.person("moderator").agree()
    for action, status in (("quarantine", "quarantined"), ("restore", "accepted")):
        moderator.post("/admin", item="1", action=action)
        with community.sessions() as stored:
            assert stored.get(Item, 1).status == status


def test_withdrawing_everything_names_exports_of_others_votes(community: Community, tmp_path: Path) -> None:
    asker, rater = community.person().agree(), community.person().agree()
    asker.post("/compare", prompt="What is a port?")
    asker.post("/report", 404, item="1", reason="mine")
    rater.post("/vote", item="1", swapped="no", choice="left")
    with community.sessions() as stored:
        export(stored, community.folder / "exports" / "autumn")
    data = json.loads(asker.get("/mine.json"))
    assert data["comparisons"][0]["prompt"] == "What is a port?" and not data["votes"]
    assert "<li>autumn</li>" in asker.post("/withdraw", item="all")


def test_withdrawing_everything_takes_words_of_reports_and_fields(community: Community) -> None:
    owner, other = community.person().agree(), community.person().agree()
    owner.give("Question", "Answer", field="my field")
    other.give("Question 2", "Answer")
    owner.post("/report", item="2", reason="my words")
    owner.post("/compare", prompt="Mine", field="my field")
    owner.post("/withdraw", item="all")
    with community.sessions() as stored:
        assert stored.scalar(select(Report.reason)) == ""
        assert stored.get(Item, 1).field == "" and stored.scalar(select(Comparison.field)) == ""


def test_files_beside_the_app_do_not_stop_a_withdrawal(
    community: Community, capsys: pytest.CaptureFixture
) -> None:
    writer = community.person().agree()
    writer.give("Question", "Answer")
    for name, content in (("a", b"sft: [\n"), ("b", b"\xff\xfe\x00"), ("c", b"sft: text\ntrain: 3\n")):
        (community.runs / name).mkdir(parents=True)
        (community.runs / name / "config.yaml").write_bytes(content)
    (community.folder / "exports" / "half").mkdir(parents=True)
    (community.folder / "exports" / "half" / "manifest.json").write_text('{"items": [')
    writer.post("/withdraw", item="1")
    with community.sessions() as stored:
        assert stored.get(Item, 1).status == "withdrawn"
    said = capsys.readouterr().err
    assert all(f"{name}/config.yaml" in said for name in "ab") and "half/manifest.json" in said


def test_texts_are_stored_as_they_were_typed(community: Community) -> None:
    writer = community.person().agree()
    writer.give("One\r\ntwo", "A\r\nB\x00C\rD", source="x\x00y")
    with community.sessions() as stored:
        item = stored.get(Item, 1)
        assert (item.prompt, item.answer, item.source) == ("One\ntwo", "A\nBC\nD", "xy")
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = f"csrf={writer.csrf()}&may_be_used=yes&prompt=%ff%fe&answer=%ed%a0%80".encode()
    assert writer.client.post("/write", content=body, headers=headers).status_code in (200, 400)
    writer.get("/mine")


def test_a_model_without_its_key_is_down(tmp_path: Path) -> None:
    endpoint = {"name": "one", "url": "http://127.0.0.1:9", "key_file": str(tmp_path / "gone")}
    person = Community(tmp_path, [endpoint]).person().agree()
    assert "does not answer at the moment" in person.post("/ask", 503, question="Hello?")
    assert "does not answer at the moment" in person.post("/ask/stream", question="Hello?")


def test_a_key_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o600)
    with pytest.raises(InputError, match=r"secret: holds 0 bytes"):
        identity.secret(tmp_path)


@pytest.mark.parametrize(
    "models",
    [
        "- name: 3\n  url: [x]\n",
        "name: a\nurl: b\n",
        "- {name: a, url: 'http://a', key_file: 3}\n",
        "- {name: a, url: 'http://[bad'}\n",
        "- {name: a, url: 'a:8080'}\n",
    ],
)
def test_strange_lists_of_models_are_a_sentence(models: str, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(models)
    with pytest.raises(InputError, match=r"models.yaml: .*\.$"):
        community_command(CommunityConfig(dir=str(tmp_path), invite="reviewer"))


@pytest.mark.parametrize("withdraw", ["item:" + "9" * 30, "item:x", "item:", "nobody"])
def test_what_is_not_there_cannot_be_withdrawn(withdraw: str, tmp_path: Path) -> None:
    database.opened(f"sqlite:///{tmp_path / SQLITE}").dispose()
    with pytest.raises(InputError, match="no such"):
        community_command(CommunityConfig(dir=str(tmp_path), withdraw=withdraw))


@pytest.mark.parametrize("asked", [{"withdraw": "item:1"}, {"export": "autumn"}])
def test_a_folder_without_an_app_is_left_as_it_is(asked: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody has used the app there yet"):
        community_command(CommunityConfig(dir=str(tmp_path / "community"), **asked))
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_whole_or_not_there(
    community: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    community.person().agree().give("Question", "Answer")
    accepted(community, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with community.sessions() as stored:
        with monkeypatch.context() as patch:
            patch.setattr("elm_megatron.community.export._review_agreement", full)
            with pytest.raises(OSError, match="No space"):
                export(stored, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert export(stored, tmp_path / "out")["items"] == ["item 1"]
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_votes_of_two_people_both_count(community: Community) -> None:
    asker = community.person().agree()
    asker.post("/compare", prompt="Question")
    for _ in range(2):
        community.person().agree().post("/vote", item="1", swapped="no", choice="left")
    with community.sessions() as stored:
        assert len(list(stored.scalars(select(Vote)))) == 2


def test_a_database_that_is_gone_is_a_page(community: Community) -> None:
    person = community.person().agree()
    csrf = person.csrf()
    community.engine.dispose()
    path = community.folder / "community.sqlite"
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    form = {"csrf": csrf, "prompt": "A", "answer": "B", "may_be_used": "yes"}
    for answer in (
        person.client.post("/write", data=form), person.client.get("/mine"), person.client.get("/health")
    ):  # fmt: skip
        assert answer.status_code == 503 and "cannot store anything at the moment" in answer.text
    assert person.client.get("/nowhere").status_code == 404
    path.rmdir()
    path.with_suffix(".away").rename(path)
    assert person.client.post("/write", data=form).status_code == 200
