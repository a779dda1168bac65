"""An evaluation as one HTML page that needs nothing but itself."""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import markdown
from matplotlib.figure import Figure

from label2label.evaluation.plots import figure_svg
from label2label.evaluation.report import markdown_report, report_figures

_STYLE = """
:root { color-scheme: light; --line: #d5dbe3; --soft: #f4f6f9; --ink: #1a202c; --blue: #2b6cb0; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: white; font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
a { color: var(--blue); }
h1 + ul { list-style: none; margin: 0; padding: .75rem 1rem; background: var(--soft);
  border-left: 4px solid var(--blue); }
h1 + ul li { padding: .2rem 0; }
.notice { margin: 1rem 0; padding: .75rem 1rem; background: #fffaf0;
  border-left: 4px solid #c05621; }
.notice p { margin: .2rem 0; }
.toc ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none;
  margin: 1rem 0 0; padding: 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
.scroll:focus-visible { outline: 2px solid var(--blue); }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--soft); vertical-align: bottom; white-space: normal; min-width: 5rem; }
td:first-child, th:first-child { position: sticky; left: 0; white-space: normal;
  max-width: 11rem; }
td:first-child { background: white; }
@media (min-width: 40rem) { td:first-child, th:first-child { max-width: none; } }
tbody tr:hover td { background: var(--soft); }
figure { margin: 1rem 0; }
figure img { display: block; max-width: none; }
figcaption, footer { font-size: .875rem; color: #4a5568; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media print { .scroll { overflow: visible; } }
"""


def html_page(result: Mapping[str, Any], notices: Sequence[str] = ()) -> str:
    """Tell an evaluation as a page; styles, figures and the figures' numbers are inside it.

    Args:
        result: of an evaluation, as its JSON file holds it.
        notices: what a reader must know before any number, one sentence or more each.

    Returns:
        An HTML document. Names from the data are shown as they are and never run.
    """
    writer = markdown.Markdown(
        extensions=["tables", "toc"], extension_configs={"toc": {"toc_depth": "2-2"}}
    )
    body = writer.convert(markdown_report(result))
    contents: str = writer.toc  # type: ignore[attr-defined]
    body = re.sub(
        r"<table>.*?</table>",
        lambda match: _scrolling(match.group(), "Table"),
        body,
        flags=re.DOTALL,
    )
    figures = report_figures(result)
    body = re.sub(
        r'<p><img alt="([^"]*)" src="([^"]*)\.png" />(?:</p>)',
        lambda match: _figure(match.group(1), figures[match.group(2)]),
        body,
    )
    head, summary_end, rest = body.partition("</ul>")
    warned = "".join(f"<p>{html.escape(notice)}</p>" for notice in notices)
    warned = warned and f'<div class="notice" role="note">{warned}</div>\n'
    title = html.escape(f"{result['model']['name']} on {result['dataset']['name']}")
    numbers = base64.b64encode(json.dumps(result, allow_nan=False).encode()).decode()
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{head}{summary_end}\n{warned}<nav>{contents}</nav>\n{rest}\n"
        "</main>\n<footer>\n"
        "<p>The figures say how the model does on these images, and nothing of people who are not "
        "in them. Labels are the opinions of whoever gave them. Groups under 30 images are shown "
        "and not compared. The model is not for identification, for telling anyone's ethnicity, "
        "or for decisions about people.</p>\n"
        f'<p><a download="figures.json" href="data:application/json;base64,{numbers}">All figures '
        f"as JSON</a>. Made with {html.escape(versions)}.</p>\n</footer>\n</body>\n</html>\n"
    )


def _figure(title: str, figure: Figure) -> str:
    source = base64.b64encode(figure_svg(figure)).decode()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    image = (
        f'<img alt="{title}" width="{width}" height="{height}" '
        f'src="data:image/svg+xml;base64,{source}">'
    )
    return f"<figure>{_scrolling(image, title)}<figcaption>{title}</figcaption></figure>"


def _scrolling(inside: str, title: str) -> str:
    # What is wider than a phone scrolls by itself, by keyboard too, and the page does not.
    return f'<div class="scroll" role="group" aria-label="{title}" tabindex="0">{inside}</div>'
