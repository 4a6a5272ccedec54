"""A lesson's ticket as HTML."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markupsafe import Markup

from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import display_path
from checks.kit.report.safe_text import escape_controls


def ticket(lesson: Lesson) -> Markup:
    """The ticket without its first heading, which the page has already. HTML in it is shown as text."""
    path = lesson.folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = f"`{display_path(path)}` is not there. To have it again: `workbook reset {lesson.number}`"
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(escape_controls(text))
    if tokens and tokens[0].tag == "h1":
        del tokens[: next(at for at, token in enumerate(tokens) if token.type == "heading_close") + 1]
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
        for child in token.children or []:
            if child.type == "link_open":
                outside = str(child.attrs.get("href", "")).startswith(("https://", "http://"))
                child.attrs = dict(child.attrs, target="_blank", rel="noreferrer noopener") if outside else {}
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))
