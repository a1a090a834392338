"""The HTML of the admin page: made of texts that are all escaped here, with no script.

A :class:`Html` is finished HTML. :func:`fill` puts values into a template, and escapes each that is
none: so nothing comes into a page unescaped by being forgotten.
"""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode

from sigmic_guard.lifecycle import CancelResult, State
from sigmic_guard.lifecycle.explaining import REASONS, STATES, history, span, utc_time
from sigmic_guard.lifecycle.states import ENDED
from sigmic_guard.lifecycle.text import one_line, shown_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sigmic_guard import RemoteTask, TaskRow
    from sigmic_guard.integrations.admin.listing import Listing

#: What came of a cancel, by ``CancelResult`` or by what there is instead of one.
_NOTICES: Final = {
    CancelResult.ACKNOWLEDGED.value: "cancelled; the API has acknowledged it.",
    CancelResult.CONFIRMED.value: "cancelled; the API shows that it has ended.",
    CancelResult.ALREADY_FINISHED.value: "it had ended by itself before.",
    CancelResult.NOT_FOUND.value: "cancelled; the API knows no such task any more.",
    CancelResult.UNCONFIRMED.value: (
        "to be cancelled; there is no proof of its end yet: the supervisor goes on with it."
    ),
    "withdrawn": "it was never created, and will not be.",
    "gone": "it is not live in this process any more; nothing was done.",
    "draining": "nothing was done; the supervisor is shutting down, and ends its tasks itself.",
}

#: Cancelling these changes nothing: it is under way, or over.
_NO_CANCEL: Final = ENDED | {State.CANCELLING}

_STYLE: Final = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 22%, Canvas);
  --soft: color-mix(in srgb, CanvasText 6%, Canvas);
  --edge: color-mix(in srgb, CanvasText 60%, Canvas); }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem;
  background: Canvas; color: CanvasText; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  justify-content: space-between; }
h1 { font-size: 1.35rem; margin: .5rem 0; overflow-wrap: anywhere; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem; }
nav a { display: block; padding: .25rem .75rem; border: 1px solid var(--edge);
  border-radius: 1rem; text-decoration: none; color: inherit; }
nav a[aria-current] { background: CanvasText; color: Canvas; }
[role=status], [role=alert] { padding: .75rem 1rem; border: 1px solid var(--edge);
  border-inline-start: .35rem solid CanvasText; background: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: start; padding: .5rem 0; }
th, td { text-align: start; padding: .4rem .6rem; border-block-end: 1px solid var(--line);
  vertical-align: baseline; }
tbody th { font-weight: normal; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
ol li { overflow-wrap: anywhere; }
button, input { font: inherit; padding: .3rem .8rem; border-radius: .4rem;
  border: 1px solid var(--edge); min-height: 2.5rem; }
button { cursor: pointer; white-space: nowrap; background: ButtonFace; color: ButtonText; }
input { width: 100%; max-width: 28rem; background: Field; color: FieldText; }
label { display: block; margin-block-end: .25rem; }
form p { margin: .75rem 0; }
:focus-visible { outline: .18rem solid LinkText; outline-offset: .12rem; }
.scroll { overflow-x: auto; }
@media (max-width: 40rem) {
  body { padding: .75rem; }
  table, caption, tbody { display: block; }
  thead { display: block; position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  tbody tr { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem .9rem;
    padding-block: .6rem; border-block-end: 1px solid var(--line); }
  tbody th, td { padding: 0; border: 0; }
  tbody th { flex: 1 0 100%; }
  td:empty { display: none; }
  td:last-child { margin-inline-start: auto; }
  td[data-label]::before { content: attr(data-label) " "; }
}
"""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title} · sigmic_guard</title>
<style nonce="{nonce}">{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_LOG_IN: Final = """<main>
<h1>Live tasks</h1>
{alert}
<form method="post" action="{home}login">
<input autocomplete="username" value="sigmic_guard" hidden>
<p><label for="token">Token of this page</label>
<input id="token" name="token" type="password" autocomplete="current-password" required></p>
<p><button>Log in</button></p>
</form>
</main>"""

_HEADER: Final = """<header>
<h1>{title}</h1>
<form method="post" action="logout"><input type="hidden" name="csrf" value="{csrf}">
<button>Log out</button></form>
</header>"""

_LIST: Final = """{header}
<main>
{notice}
<nav aria-label="Tasks by state"><ul>{filters}</ul></nav>
{table}
{pages}
<p>At {time}, of process {pid}. Other processes of the service show theirs.
<a href="{here}">Refresh</a></p>
</main>"""

_TABLE: Final = """<div class="scroll" role="region" aria-label="Tasks" tabindex="0"><table>
<caption>{caption}</caption>
<thead><tr><th scope="col">Task</th><th scope="col">State</th>
<th scope="col">Reason</th><th scope="col">Age</th><th scope="col">Deadline</th>
<th scope="col">Attempts</th><th scope="col">Action</th></tr></thead>
<tbody>{rows}</tbody>
</table></div>"""

_ROW: Final = """<tr><th scope="row"><a href="{href}">{name}</a></th><td>{state}</td>
<td data-label="Reason">{reason}</td><td data-label="Age">{age}</td>
<td data-label="Deadline">{deadline}</td><td data-label="Attempts">{attempts}</td>
<td>{button}</td></tr>"""

_BUTTON: Final = """<form method="post" action="cancel">
<input type="hidden" name="csrf" value="{csrf}">
<input type="hidden" name="task" value="{intent_id}">
<input type="hidden" name="state" value="{state}"><input type="hidden" name="page" value="{page}">
<button aria-label="{word} task {name}">{word}</button></form>"""

_TASK: Final = """{header}
<main>
{notice}
<dl><dt>State</dt><dd>{state}: {meaning}</dd>
<dt>Reason</dt><dd>{reason}</dd>
<dt>Intent</dt><dd>{intent_id}</dd>
<dt>Owner</dt><dd>this process, {pid}</dd></dl>
<h2>What happened</h2>
<ol>{moments}</ol>
{button}
<p><a href="./">All tasks</a></p>
</main>"""


class Html(str):
    """Finished HTML, to be put into a page as it is."""

    __slots__ = ()


class View(NamedTuple):
    """What a page knows of whoever looks at it.

    :ivar csrf: proves that a form is of a page of this session's.
    :ivar notice: what came of what was done last.
    :ivar draining: whether the supervisor shuts down.
    """

    csrf: str
    notice: str | None
    draining: bool


def fill(template: str, **values: object) -> Html:
    """Return the template with its values, each of which is escaped unless it is :class:`Html`."""
    return Html(
        template.format(
            **{
                name: value if isinstance(value, Html) else escape(str(value))
                for name, value in values.items()
            }
        )
    )


def page(title: str, body: Html, nonce: str) -> bytes:
    """Return a whole page, in UTF-8."""
    text = fill(_PAGE, title=title, body=body, nonce=nonce, style=Html(_STYLE))
    return text.encode("utf-8", "replace")


def log_in(home: str, *, refused: bool) -> Html:
    """Ask for the token; ``home`` leads to the list."""
    alert = Html('<p role="alert">That is not the token.</p>') if refused else Html()
    return fill(_LOG_IN, alert=alert, home=home)


def message(title: str, sentence: str, home: str) -> Html:
    """Say one thing, such as why there is nothing to show; ``home`` leads to the list."""
    template = '<main><h1>{title}</h1><p>{sentence}</p><p><a href="{home}">All tasks</a></p></main>'
    return fill(template, title=title, sentence=sentence, home=home)


def name_of(remote_id: str | None) -> str:
    """Return what a task is called on a page."""
    return "without an id yet" if remote_id is None else shown_id(remote_id)


def notice(result: str, name: str) -> str:
    """Return what came of a cancel, in a sentence; ``name`` is empty where no task was found."""
    said = _NOTICES[result]
    return f"Task {name}: {said}" if name else said[0].upper() + said[1:]


def task_list(listing: Listing, view: View) -> Html:
    """Show how many tasks there are, by state, and one page of them."""
    where = {"state": listing.state or "", "page": listing.page}
    return fill(
        _LIST,
        header=fill(_HEADER, title="Live tasks", csrf=view.csrf),
        notice=_notice(view),
        filters=_filters(listing),
        table=_table(listing, view) if listing.rows else Html("<p>There are no tasks here.</p>"),
        pages=_pages(listing),
        time=utc_time(listing.taken_at),
        pid=os.getpid(),
        here="./?" + urlencode(where),
    )


def task_page(task: RemoteTask, now: float, view: View) -> Html:
    """Tell what is known of one task, and why; ``now`` is in seconds since the epoch."""
    record = task.record
    name, state = name_of(record.remote_id), record.state
    reason = "none" if record.reason is None else f"{record.reason}: {REASONS[record.reason]}"
    moments = (
        fill("<li>{at} {text}</li>", at=utc_time(moment.at), text=one_line(moment.text))
        for moment in history(record, now, key=False)
    )
    return fill(
        _TASK,
        header=fill(_HEADER, title=f"Task {name}", csrf=view.csrf),
        notice=_notice(view),
        state=state,
        meaning=STATES[state],
        reason=reason,
        intent_id=one_line(record.intent_id),
        pid=os.getpid(),
        moments=_join(moments),
        button=_button(record.intent_id, name, state, view),
    )


def _notice(view: View) -> Html:
    draining = "The supervisor is shutting down: it takes on no task, and ends those that it has."
    # What came of the button is what one wants to be at, and to hear, after the page was loaded.
    focused = '<p role="status" tabindex="-1" autofocus>{text}</p>'
    told = Html() if view.notice is None else fill(focused, text=view.notice)
    state = fill('<p role="status">{text}</p>', text=draining) if view.draining else Html()
    return _join([told, state])


def _filters(listing: Listing) -> Html:
    counts = listing.counts
    found: list[tuple[State | None, str, int]] = [(None, "all", sum(counts.values()))]
    found += [(it, it.value, counts[it]) for it in State if counts[it] or it is listing.state]
    template = '<li><a href="{href}"{current}>{word} {count}</a></li>'
    return _join(
        fill(
            template,
            href="./" if state is None else f"./?state={state}",
            current=Html(' aria-current="page"' if state is listing.state else ""),
            word=word,
            count=f"{count:,}",
        )
        for state, word, count in found
    )


def _table(listing: Listing, view: View) -> Html:
    which = "tasks" if listing.state is None else f"tasks that are {listing.state}"
    last = listing.first + len(listing.rows) - 1
    caption = f"{listing.first:,} to {last:,} of {listing.total:,} {which}, the oldest first"
    rows = _join(_row(row, listing, view) for row in listing.rows)
    return fill(_TABLE, caption=caption, rows=rows)


def _row(row: TaskRow, listing: Listing, view: View) -> Html:
    name = name_of(row.id)
    return fill(
        _ROW,
        href="task?" + urlencode({"task": row.intent_id}, errors="replace"),
        name=name,
        state=row.state,
        reason=row.reason or "",
        age=span(row.age),
        deadline=_due(row.deadline),
        attempts=row.attempts or "",
        button=_button(row.intent_id, name, row.state, view, listing),
    )


def _button(
    intent_id: str, name: str, state: State, view: View, listing: Listing | None = None
) -> Html:
    if view.draining or state in _NO_CANCEL:
        return Html()
    return fill(
        _BUTTON,
        csrf=view.csrf,
        intent_id=intent_id,
        state="" if listing is None else listing.state or "",
        page=1 if listing is None else listing.page,
        word="Ask again" if state is State.UNCONFIRMED else "Cancel",
        name=name,
    )


def _pages(listing: Listing) -> Html:
    links = []
    if listing.page > 1:
        links.append((min(listing.page - 1, listing.last_page), "Previous"))
    if listing.page < listing.last_page:
        links.append((listing.page + 1, "Next"))
    if not links:
        return Html()
    items = (
        fill(
            '<li><a href="{href}">{word}</a></li>',
            href="./?" + urlencode({"state": listing.state or "", "page": page}),
            word=word,
        )
        for page, word in links
    )
    return fill('<nav aria-label="Pages"><ul>{items}</ul></nav>', items=_join(items))


def _due(deadline: float | None) -> str:
    if deadline is None:
        return ""
    return f"in {span(deadline)}" if deadline >= 0 else f"passed {span(-deadline)} ago"


def _join(pieces: Iterable[Html]) -> Html:
    return Html("\n".join(pieces))
