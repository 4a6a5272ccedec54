"""Verdicts for a notebook: the same words as in a terminal, from the same model."""

from __future__ import annotations

from html import escape

from checks.kit.lessons.hints import has_hints
from checks.kit.lessons.words import plural
from checks.kit.report.known_errors import explain_error
from checks.kit.report.model import Outcome, Place, Report, Result
from checks.kit.report.next_step import next_step
from checks.kit.report.terminal import MAX_SHOWN_LINES, SYMBOL
from checks.kit.testbed.evidence import Evidence

STYLE = """
.bookshop { font-size: 14px; line-height: 1.45; max-width: 60em }
.bookshop ul { list-style: none; padding-left: .5em; margin: .3em 0 }
.bookshop { --good: #1f7a3d; --bad: #c0352c }
.vscode-dark .bookshop, .vscode-high-contrast:not(.vscode-high-contrast-light) .bookshop,
[data-jp-theme-light="false"] .bookshop { --good: #4fb673; --bad: #f2776e }
.bookshop .passed b { color: var(--good) }
.bookshop .failed b, .bookshop .error b { color: var(--bad) }
.bookshop .blocked { opacity: .75 }
.bookshop > details { border-left: 3px solid var(--bad); padding-left: .8em; margin: .6em 0 }
.bookshop summary { cursor: pointer; font-weight: 600 }
.bookshop h5 { margin: .8em 0 .1em; font-size: 1em }
.bookshop pre { white-space: pre-wrap; margin: .2em 0; font-size: 12px; background: transparent; color: inherit }
"""


def html(report: Report, total: int = 0, running: str = "") -> str:
    """A report as one HTML element, of `total` checks; `running` is the title of the check that runs, if any."""
    head = f"Bookshop · lesson {report.lesson:02} · {report.title}"
    parts = [f'<style>{STYLE}</style><div class="bookshop"><strong>{escape(head)}</strong>']
    parts.append(f"<div>{escape(report.target)} on {escape(report.postgres)}</div><ul>")
    for result in report.results:
        needs = f" (not run; it needs: {result.blocked_by})" if result.outcome is Outcome.BLOCKED else ""
        parts.append(
            f'<li class="{result.outcome}"><b>{SYMBOL[result.outcome]}</b> {escape(result.title + needs)}</li>'
        )
    parts.append("</ul>")
    failed = [result for result in report.results if result.outcome.is_red]
    for number, result in enumerate(failed):
        parts.append(_verdict(report, result, first=number == 0))
    if running:
        left = f"{len(report.results)} of {total} checks" if total else ""
        parts.append(f"<div>{escape(left)} · running: {escape(running)}</div>")
    else:
        label = "Next" if report.passed else "Run all of them" if report.all_green else "Open"
        parts.append(f"<strong>Lesson {report.lesson:02} · {report.tally(total)}</strong>")
        parts.append(f"<div>{label}: <code>{escape(next_step(report))}</code></div>")
    return "".join([*parts, "</div>"])


def _verdict(report: Report, result: Result, *, first: bool) -> str:
    parts = [f"<details{' open' if first else ''}><summary>{SYMBOL[result.outcome]} {escape(result.title)}</summary>"]
    if result.finding:
        parts.append(f"<h5>What happened</h5><div>{escape(result.finding.happened)}</div>")
        parts.append(f"<h5>Why it matters</h5><div>{escape(result.finding.because)}</div>")
    if result.steps:
        parts.append(f"<h5>What the check did</h5><ol>{''.join(map(_step, result.steps))}</ol>")
    parts += [f"<h5>{escape(section.title)}</h5><pre>{escape(_rows(section))}</pre>" for section in result.evidence]
    where = [text for place in result.places for text in _where(place)]
    if result.finding and result.finding.section:
        where.append(f"this notebook, section “{result.finding.section}”")
    if has_hints(report.lesson, result.name):
        where.append(f'hint("lesson_{report.lesson:02}", "{result.name}")')
    parts.append(f"<h5>Where to look</h5><pre>{escape(chr(10).join(where))}</pre>")
    return "".join([*parts, "</details>"])


def _step(step: str) -> str:
    """Its first line; the request in full is folded away."""
    text, _, detail = step.partition("\n")
    folded = f"<details><summary>in full</summary><pre>{escape(detail)}</pre></details>" if detail else ""
    return f"<li>{escape(text)}{folded}</li>"


def _where(place: Place) -> list[str]:
    function = f"  in {place.function}" if place.function else ""
    means = explain_error(place.error)
    below = [f"  {text}" for text in (place.error, means and f"In other words: {means}") if text]
    return [f"{place.path}:{place.line}{function}", *below]


def _rows(section: Evidence) -> str:
    shown = section.lines[-MAX_SHOWN_LINES:]
    rows = [
        f"{line.label:<4} " * bool(line.label) + line.text + f"   → {line.result}" * bool(line.result) for line in shown
    ]
    if len(section.lines) > len(shown):
        rows.insert(0, f"… {plural(len(section.lines) - len(shown), 'earlier line')}")
    return "\n".join(rows)
