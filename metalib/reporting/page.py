"""The report as Markdown with pictures beside it, and as one HTML file with the pictures inside."""

import base64
import re
from collections.abc import Mapping
from typing import Any

import jinja2
import pandas as pd
from markdown_it import MarkdownIt


def render_markdown(context: Mapping[str, Any], template: str = "report.md.j2") -> str:
    """Return the report's Markdown, or that of one section; every figure in its text comes from ``context``.

    Raises:
        jinja2.UndefinedError: the context lacks a value that the template needs.
    """
    return _templates().get_template(template).render(context)


def render_html(markdown: str, title: str, pictures: Mapping[str, bytes]) -> str:
    """Return the Markdown as one self-contained HTML page: no network, no other file.

    Args:
        markdown: the report.
        title: of the page.
        pictures: PNG or WebP bytes by the path under which the Markdown names them; its ending says which.

    Raises:
        KeyError: the Markdown names a picture that is not given.
    """
    body = MarkdownIt("commonmark").enable("table").render(markdown)

    def inline(match: re.Match[str]) -> str:
        kind = match[1].rsplit(".", 1)[-1]
        return f'src="data:image/{kind};base64,{base64.b64encode(pictures[match[1]]).decode()}"'

    body = re.sub(r'src="([^"]+)"', inline, body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return _templates().get_template("page.html.j2").render(title=title, body=body)


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metalib.reporting"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["table"] = markdown_table
    return environment


def markdown_table(table: pd.DataFrame, digits: int = 3) -> str:
    """Return a data frame as a Markdown table; numbers right-aligned, missing values as a dash."""

    def cell(value: Any) -> str:
        if value is None or pd.isna(value):
            return "-"
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    numeric = [all(not isinstance(v, str) for v in table[column]) for column in table.columns]
    lines = [
        "| " + " | ".join(str(column) for column in table.columns) + " |",
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
    ]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
