"""README states figures; they are those of the committed results."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tools.headline import BEGIN, END, headline, replaced

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_figures_are_those_of_the_committed_results():
    assert replaced(README, headline(ROOT)) == README, "README is behind the results: run python -m tools.headline"


def test_the_figures_are_read_from_the_results(tmp_path):
    for name in ("reports", "published", "benchmarks/results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    metrics = json.loads((ROOT / "reports/metrics.json").read_text())
    metrics["sinusoid"]["maml_k10"]["mse_step10"] = 77.125
    metrics["locomotion"]["ant_vel"]["oracle"]["return_step0"] = 777.2
    metrics["ablation"]["layers"]["1"] = 7777.25
    (tmp_path / "reports/metrics.json").write_text(json.dumps(metrics))
    found = headline(tmp_path)
    for figure in ("| 77.12 |", "| 777 |", "7777.25,"):
        assert figure in found
        assert figure not in headline(ROOT)


@pytest.mark.parametrize("page", ["no comment", BEGIN, f"{END}\n{BEGIN}"])
def test_a_page_without_a_place_for_figures_is_refused(page):
    with pytest.raises(ValueError, match="must hold the lines"):
        replaced(page, "figures")


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_stand_at_the_top():
    top = README[: README.index("## ")]
    assert "make reproduce" in top
    assert "make test" in top


def test_the_python_examples_run(tmp_path, monkeypatch):
    """The second example as it stands; the first needs trained weights, which git does not hold."""
    first, second = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec("import torch\nx = torch.linspace(-4, 4, 10)[:, None]\n" + second, names)
    assert len(names["thetas"]) == 6  # type: ignore[arg-type]
    assert "TrainedMethod.load(" in first
