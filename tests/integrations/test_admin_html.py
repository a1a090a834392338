"""The HTML of the admin page: hostile texts stay texts, and everything in it has a name."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

import pytest

from sigmic_guard.integrations.admin import pages
from sigmic_guard.integrations.admin.listing import PAGE
from tests.backends import TRIO_VIRTUAL
from tests.integrations.browser import Answer, door, logged_in, page_of
from tests.supervisor.lab import Lab

__all__ = ["door"]

pytestmark = pytest.mark.usefixtures("door")
virtual = pytest.mark.backends(TRIO_VIRTUAL)

#: What a page must not hold as it stands, wherever it came from.
HOSTILE = "\"'><script>alert(1)</script>&lt;"


async def hostile_pages() -> list[Answer]:
    """Every page, where ids, statuses and errors are somebody's who means harm."""
    lab = Lab()
    async with lab.open() as supervisor:
        task = await supervisor.start("m")
        entry = task._entry
        record = entry.record
        fields = {
            "remote_id": HOSTILE,
            "last_error": HOSTILE + "\u202e" + "long" * 1000,
            "remote_status": HOSTILE,
            "namespace": HOSTILE,
            "base_url": HOSTILE,
        }
        changed = type(record)(
            **{name: getattr(record, name) for name in record.__struct_fields__} | fields
        )
        browser = await logged_in(supervisor)
        entry.record = changed
        try:
            answers = [
                await browser.get(),
                await browser.get("/task?task=" + record.intent_id),
                await browser.get("/task?task=" + HOSTILE.replace("&", "%26")),
                await browser.get("/?state=" + HOSTILE.replace("&", "%26")),
                await browser.get("/" + HOSTILE),
            ]
        finally:
            entry.record = record
    return answers


async def test_hostile_texts_are_shown_as_what_they_are() -> None:
    answers = await hostile_pages()
    assert [answer.status for answer in answers] == [200, 200, 404, 200, 404]
    for answer in answers:
        assert "<script" not in answer.html
        assert "\u202e" not in answer.html
        assert len(answer.body) < 20_000
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answers[0].html
    assert answers[1].html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


async def test_without_escaping_a_hostile_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    monkeypatch.setattr(pages, "escape", lambda text: text)
    assert any("<script" in answer.html for answer in await hostile_pages())


@pytest.mark.parametrize("path", ["/", "/task?task={}", "/nothing", "/cancel"])
async def test_a_page_brings_nothing_from_elsewhere_and_is_kept_nowhere(path: str) -> None:
    async with Lab().open() as supervisor:
        task = await supervisor.start("m")
        path = path.format(task.record.intent_id)
        in_, out = await logged_in(supervisor), page_of(supervisor)
        nonces = set()
        for answer in [await in_.get(path), await out.get(path)]:
            headers = answer.headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-type"] == "text/html; charset=utf-8"
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "form-action 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            [nonce] = re.findall(r"style-src 'nonce-([\w-]+)'", policy)
            assert f'<style nonce="{nonce}">' in answer.html
            nonces.add(nonce)
            brought = r'<script|<link|<img|="https?:|url\(|@import|\son\w+=| style='
            assert not re.findall(brought, answer.html)
        assert len(nonces) == 2


# --- what a person meets --------------------------------------------------------------------------


class Whole(HTMLParser):
    """Finds what a browser would have to guess, and what a screen reader could not name."""

    VOID: Final = {"meta", "input", "br", "!doctype"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.inputs: list[str | None] = []
        self.labels: list[str | None] = []
        self.buttons = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        if len(has) != len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        if tag == "th" and "scope" not in has:
            self.wrong.append("a heading of a table has no scope")
        if tag == "table" and "main" not in self.open:
            self.wrong.append("a table stands outside of the main part")
        if tag == "input" and has.get("type") != "hidden" and "hidden" not in has:
            self.inputs.append(has.get("id"))
        if tag == "label":
            self.labels.append(has.get("for"))
        self.buttons += tag == "button"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> ends nothing")


def check_whole(answer: Answer) -> Whole:
    parser = Whole()
    parser.feed(answer.html)
    parser.close()
    assert parser.wrong == parser.open == []
    assert parser.inputs == parser.labels
    assert answer.html.count("<h1>") == 1
    assert '<html lang="en">' in answer.html
    return parser


@virtual
async def test_pages_are_whole_and_everything_in_them_has_a_name() -> None:
    """Real buttons, labels, headings with a scope, a caption: for keyboards and screen readers."""
    lab = Lab()
    async with lab.open() as supervisor:
        tasks = [await supervisor.start("m", timeout=1000) for _ in range(PAGE + 1)]
        check_whole(await page_of(supervisor).get())
        browser = await logged_in(supervisor)
        listed = await browser.get()
        assert check_whole(listed).buttons == PAGE + 1  # and to log out
        assert "<caption>1 to 100 of 101 tasks" in listed.html
        assert (
            check_whole(await browser.get(f"/task?task={tasks[0].record.intent_id}")).buttons == 2
        )
        check_whole(await browser.get("/nothing"))
        done = await browser.post("/cancel", **listed.fields("cancel"))
        check_whole(await browser.follow(done))


@pytest.mark.parametrize(
    "html", ["<p><b></p>", "<th>a</th>", '<input id="a">', "<main></main><table></table>"]
)
def test_a_page_that_is_not_whole_is_found(html: str) -> None:
    """The negative control."""
    page = f'<html lang="en"><h1></h1>{html}</html>'
    with pytest.raises(AssertionError):
        check_whole(Answer(200, {}, page.encode()))
