"""What the project's Markdown pages hold: their Python examples and their links."""

import re


def python_examples(page: str) -> list[str]:
    """Return the code of a page's Python blocks, in order."""
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def linked_files(page: str) -> list[str]:
    """Return the files, relative to the page, that its links and pictures lead to."""
    targets: list[str] = re.findall(r"\]\(([^)#\s]+)", page)
    return [target for target in targets if not target.startswith(("https://", "http://"))]
