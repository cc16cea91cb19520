"""A replay as one HTML page that needs nothing else: readable on a phone, in print, light and dark.

Every text goes through `_escaped`. The page's own script is named by its hash in a content security
policy, so that a text which was markup all the same could not run.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence

from memrl.evaluation.replay_steps import Choice, Moment, Replay, ShownPage, Step, moments_of
from memrl.page_texts import printable

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --faint: #63636b; --line: #d5d5dc;
  --back: #ffffff; --box: #f5f5f8; --chosen: #dff2e5; --mark: #e6e9f5; --truth: #7a2f8f; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf1; --faint: #a3a3ad; --line: #3a3a42;
  --back: #16161a; --box: #212127; --chosen: #1d4029; --mark: #2d3350; --truth: #d79be8; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--back); overflow-wrap: anywhere; }
header, section { max-width: 90rem; margin: 0 auto; padding: .5rem 1rem; }
h1 { font-size: 1.3rem; margin: .5rem 0; } h2 { font-size: 1.1rem; margin: .5rem 0; }
h3 { font-size: 1rem; margin: .25rem 0; color: var(--faint); }
nav { position: sticky; top: 0; z-index: 1; background: var(--back); text-align: center;
  border-bottom: 1px solid var(--line); padding: .4rem; }
nav button { font: inherit; padding: .2rem .8rem; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1rem; }
.step { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem;
  margin: 0 0 .8rem; }
.headline { font-weight: 600; margin: 0 0 .3rem; }
ul { margin: .2rem 0; padding-left: 1.2rem; } .news, .situation, small { color: var(--faint); }
.truth { color: var(--truth); }
table { width: 100%; border-collapse: collapse; margin: .5rem 0; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { text-align: left; vertical-align: top; padding: .2rem .4rem;
  border-top: 1px solid var(--line); }
th { color: var(--faint); font-weight: 500; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
small { display: block; font-weight: 400; } .chosen { background: var(--chosen); font-weight: 600; }
.mark { background: var(--mark); border-radius: .3rem; padding: 0 .3rem; margin-right: .2rem;
  white-space: nowrap; }
.mark.needed { background: none; border: 1px solid var(--truth); color: var(--truth); }
[hidden] { display: none; }
@media print { nav { display: none; } [hidden] { display: block; } .step { break-inside: avoid; } }
"""
_SCRIPT = """
const all = [...document.querySelectorAll('section')], nav = document.querySelector('nav');
const place = document.getElementById('place');
let at = 0, whole = false;
function show(number) {
  at = Math.min(Math.max(number, 0), all.length - 1);
  all.forEach((one, n) => { one.hidden = !whole && n !== at; });
  place.textContent = (at + 1) + ' of ' + all.length;
}
document.getElementById('back').onclick = () => show(at - 1);
document.getElementById('on').onclick = () => show(at + 1);
document.getElementById('whole').onclick = () => { whole = !whole; show(at); };
document.onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && !whole) { event.preventDefault(); show(at + step); }
};
nav.hidden = false;
show(0);
"""


def html_page(replays: Sequence[Replay]) -> str:
    """The page of one episode, of one policy or of several beside each other.

    Without JavaScript, and in print, it shows everything; else one event at a time.
    """
    first = replays[0]
    title = f"Episode {first.episode} ({first.document}): {', '.join(r.policy for r in replays)}"
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    summaries = "".join(f"<p>{_escaped(_with_settings(replay))}</p>" for replay in replays)
    sections = "\n".join(_section(moment, replays) for moment in moments_of(replays))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_escaped(title)}</h1>\n{summaries}\n"
        "<p>Scores are the policy's own, in reward over YIELD. What is marked needed, and the gold "
        "answers, no policy sees.</p></header>\n"
        '<nav hidden><button id="back">back</button> <span id="place"></span> '
        '<button id="on">on</button> <button id="whole">all or one</button></nav>\n'
        f"<main>\n{sections}\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text), quote=True)


def _with_settings(replay: Replay) -> str:
    if not replay.settings:
        return replay.summary
    settings = ", ".join(f"{name} {value}" for name, value in replay.settings.items())
    return f"{replay.summary} ({settings})"


def _section(moment: Moment, replays: Sequence[Replay]) -> str:
    articles = []
    for replay, steps in zip(replays, moment.steps, strict=True):
        shown = "".join(map(_step, steps)) or "<p>Nothing to decide here.</p>"
        articles.append(f"<article><h3>{_escaped(replay.policy)}</h3>{shown}</article>")
    return (
        f'<section><h2>Event {moment.event}</h2><div class="side">{"".join(articles)}</div>'
        "</section>"
    )


def _step(step: Step) -> str:
    parts = [f'<p class="headline">{_escaped(step.headline)}</p>']
    parts += [_list(step.news, "news"), _list(step.truth, "truth")]
    if step.choices:
        parts.append(_choices(step.choices))
    if step.reward_terms:
        earned = ", ".join(f"{name} {value:+.3f}" for name, value in step.reward_terms.items())
        parts.append(f"<p>Earned by the next decision: {_escaped(earned)}</p>")
    parts.append(f'<p class="situation">Situation: {_escaped(step.situation)}</p>')
    for title, rows in (("Main context", step.slots), ("Candidates", step.candidates)):
        if rows:
            parts.append(_pages(title, rows))
    return f'<div class="step">{"".join(parts)}</div>'


def _list(lines: Sequence[str], name: str) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_escaped(line)}</li>" for line in lines)
    return f'<ul class="{name}">{items}</ul>'


def _choices(choices: Sequence[Choice]) -> str:
    rows = []
    has_scores = any(choice.score is not None for choice in choices)
    for choice in choices:
        score = "" if choice.score is None else f'<td class="number">{choice.score:+.4f}</td>'
        name = "chosen" if choice.is_chosen else ""
        about = f"<small>{_escaped(choice.about)}</small>" if choice.about else ""
        rows.append(f'<tr class="{name}"><td>{_escaped(choice.name)}{about}</td>{score}</tr>')
    head = "<tr><th>action</th><th>score</th></tr>" if has_scores else ""
    return f"<table><caption>Legal actions</caption>{head}{''.join(rows)}</table>"


def _pages(title: str, rows: Sequence[ShownPage]) -> str:
    lines = []
    for row in rows:
        marks = "".join(f'<span class="mark {mark}">{mark}</span>' for mark in row.marks)
        page = "" if row.page is None else str(row.page)
        lines.append(
            f'<tr><td class="number">{row.row}</td><td class="number">{page}</td>'
            f"<td>{marks}{_escaped(row.text)}<small>{_escaped(row.features)}</small></td></tr>"
        )
    return (
        f"<table><caption>{title}</caption><tr><th>row</th><th>page</th><th>text, and features "
        f"that are not 0</th></tr>{''.join(lines)}</table>"
    )
