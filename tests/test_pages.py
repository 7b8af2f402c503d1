"""Every Markdown page of the project leads only to files that exist."""

import subprocess
from pathlib import Path

import pytest

from tests.pages import linked_files

ROOT = Path(__file__).resolve().parent.parent
PAGES = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file(name):
    page = ROOT / name
    missing = [target for target in linked_files(page.read_text()) if not (page.parent / target).exists()]
    assert missing == []


def test_a_link_is_found_and_an_address_is_none():
    page = "[a](b.md), [c](d/e.md#f), ![g](h.png), [i](#j), [k](https://l.example/m)"
    assert linked_files(page) == ["b.md", "d/e.md", "h.png"]
