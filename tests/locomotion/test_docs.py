"""The examples of docs/locomotion.md run, and its figures are those of the code."""

import re
from pathlib import Path

import pytest

from tests.locomotion.test_gymnasium_envs import can_draw

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/locomotion.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("index", range(3))
def test_the_examples_run(index, capsys):
    example = EXAMPLES[index].replace("model.learn(80_000)", "model.learn(1600)").replace("num_envs=800", "num_envs=8")
    if not can_draw():
        example = example.replace(', render_mode="rgb_array"', "")
    exec(example, {})
    assert capsys.readouterr().out
    assert len(EXAMPLES) == 4  # the last one needs a trained policy


def test_every_link_leads_to_a_file_or_to_what_the_benchmark_writes():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists() or target == "benchmark-simulation.md", target
