"""Verdicts for a notebook: the terminal's words, from the same model."""

from __future__ import annotations

from html import escape

from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.next_step import next_step
from checks.kit.report.terminal import MOST_STATEMENTS, SYMBOL

STYLE = """
.bookshop { font-size: 14px; line-height: 1.45; max-width: 60em }
.bookshop ul { list-style: none; padding-left: .5em; margin: .3em 0 }
.bookshop { --good: #1f7a3d; --bad: #c0352c }
.vscode-dark .bookshop, .vscode-high-contrast:not(.vscode-high-contrast-light) .bookshop,
[data-jp-theme-light="false"] .bookshop { --good: #4fb673; --bad: #f2776e }
.bookshop .passed b { color: var(--good) }
.bookshop .failed b { color: var(--bad) }
.bookshop .blocked { opacity: .75 }
.bookshop details { border-left: 3px solid var(--bad); padding-left: .8em; margin: .6em 0 }
.bookshop summary { cursor: pointer; font-weight: 600 }
.bookshop h5 { margin: .8em 0 .1em; font-size: 1em }
.bookshop pre { white-space: pre-wrap; margin: .2em 0; font-size: 12px; background: transparent; color: inherit }
"""


def html(report: Report, total: int = 0, running: str = "") -> str:
    """The report as it stands, of `total` checks; `running` names the one under way."""
    head = f"Bookshop · lesson {report.lesson:02} · {report.title}"
    parts = [f'<style>{STYLE}</style><div class="bookshop"><strong>{escape(head)}</strong>']
    parts.append(f"<div>{escape(report.target)} on {escape(report.postgres)}</div><ul>")
    for result in report.results:
        needs = f" (not run; it needs: {result.blocked_by})" if result.outcome is Outcome.BLOCKED else ""
        parts.append(
            f'<li class="{result.outcome}"><b>{SYMBOL[result.outcome]}</b> {escape(result.title + needs)}</li>'
        )
    parts.append("</ul>")
    failed = [result for result in report.results if result.outcome is Outcome.FAILED]
    for number, result in enumerate(failed):
        parts.append(_verdict(report, result, first=number == 0))
    if running:
        left = f"{len(report.results)} of {total} checks" if total else ""
        parts.append(f"<div>{escape(left)} · running: {escape(running)}</div>")
    else:
        label = "Next" if report.passed and len(report.results) >= total else "Open"
        parts.append(f"<strong>Lesson {report.lesson:02} · {report.tally(total)}</strong>")
        parts.append(f"<div>{label}: <code>{escape(next_step(report))}</code></div>")
    return "".join([*parts, "</div>"])


def _verdict(report: Report, result: Result, *, first: bool) -> str:
    parts = [f"<details{' open' if first else ''}><summary>{SYMBOL[result.outcome]} {escape(result.title)}</summary>"]
    if result.did:
        parts.append("<h5>What we did</h5><ol>" + "".join(f"<li>{escape(step)}</li>" for step in result.did) + "</ol>")
    if result.finding:
        parts.append(f"<h5>What happened</h5><div>{escape(result.finding.happened)}</div>")
    if result.wire:
        shown = result.wire[-MOST_STATEMENTS:]
        rows = [f"#{crossing.connection:<3} {crossing.text}   → {crossing.result}" for crossing in shown]
        if len(result.wire) > len(shown):
            rows.insert(0, f"… {len(result.wire) - len(shown)} earlier statements")
        parts.append(f"<h5>On the wire</h5><pre>{escape(chr(10).join(rows))}</pre>")
    if result.finding:
        parts.append(f"<h5>Why it matters</h5><div>{escape(result.finding.because)}</div>")
    where = [f"{place.path}:{place.line}  in {place.function}\n  {place.error}" for place in result.places]
    if result.log:
        where.append("The last lines that were printed:\n" + result.log)
    if result.finding and result.finding.read:
        where.append(f"this notebook, section “{result.finding.read}”")
    where.append(f'hint("lesson_{report.lesson:02}", "{result.name}")')
    parts.append(f"<h5>Where to look</h5><pre>{escape(chr(10).join(where))}</pre>")
    return "".join([*parts, "</details>"])
