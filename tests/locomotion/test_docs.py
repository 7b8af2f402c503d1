"""The examples of docs/locomotion.md run."""

from pathlib import Path

import pytest

from tests.locomotion.test_gymnasium_envs import can_draw
from tests.pages import python_examples

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/locomotion.md").read_text()
EXAMPLES = python_examples(PAGE)


@pytest.mark.parametrize("index", range(3))
def test_the_examples_run(index, capsys):
    example = EXAMPLES[index].replace("model.learn(80_000)", "model.learn(1600)").replace("num_envs=800", "num_envs=8")
    if not can_draw():
        example = example.replace(', render_mode="rgb_array"', "")
    exec(example, {})
    assert capsys.readouterr().out
    assert len(EXAMPLES) == 4  # the last one needs a trained policy: tests/pipeline/test_quick.py
