from pathlib import Path

import pytest
import torch
import typer

from metalib.locomotion.families import FAMILIES
from metalib.locomotion.goals import draw_goal_set, load_goal_set, save_goal_set
from metalib.randomness import generator
from metalib.storage import StorageError, save_tensors
from stages import generate_goals


@pytest.mark.parametrize("name", FAMILIES)
def test_goals_survive_storage(name, tmp_path):
    goal_set = draw_goal_set(FAMILIES[name], generator(0, "goals"), 40)
    path = tmp_path / "goals.safetensors"
    save_goal_set(path, goal_set)
    loaded = load_goal_set(path)
    assert loaded.family == FAMILIES[name]
    assert torch.equal(loaded.goals, goal_set.goals)
    assert loaded.goals.shape == (40, FAMILIES[name].goal_size)


@pytest.mark.parametrize("name", ["cheetah_dir", "ant_dir"])
def test_both_directions_stand_equally_often(name):
    goals = draw_goal_set(FAMILIES[name], generator(0, "goals"), 40).goals[:, 0]
    assert goals.unique(return_counts=True)[1].tolist() == [20, 20]
    with pytest.raises(ValueError, match="an even number, not 7"):
        draw_goal_set(FAMILIES[name], generator(0, "goals"), 7)


def test_velocities_differ_and_follow_the_generator():
    first, same, other = (draw_goal_set(FAMILIES["ant_vel"], generator(seed, "goals"), 40).goals for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert len(torch.cat([first, other]).unique()) == 80
    with pytest.raises(ValueError, match="must be 1 or more, got 0"):
        draw_goal_set(FAMILIES["ant_vel"], generator(0, "goals"), 0)


def test_goals_of_another_family_or_range_are_refused(tmp_path):
    path = tmp_path / "goals.safetensors"
    for goals, family in ((torch.tensor([[2.5]]), "cheetah_vel"), (torch.ones(1, 1), "cat_vel")):
        save_tensors(path, "locomotion goals 1", {"goals": goals}, {"family": family})
        with pytest.raises(StorageError, match="goals.safetensors: .*delete it"):
            load_goal_set(path)


@pytest.mark.parametrize(("name", "width"), [("cheetah_vel", 0.1), ("ant_vel", 0.15)])
def test_velocities_for_validation_stand_evenly_on_their_range(name, width, project_files):
    generate_goals.main(name, Path("a"))
    goals = load_goal_set(Path("a/validation.safetensors")).goals
    assert goals.flatten().tolist() == pytest.approx([width / 2 + width * place for place in range(20)])


@pytest.mark.parametrize("name", ["cheetah_dir", "point_navigation"])
def test_other_goals_for_validation_are_drawn_as_those_of_the_test(name, project_files):
    generate_goals.main(name, Path("a"))
    drawn = draw_goal_set(FAMILIES[name], generator(0, f"{name} validation goals"), 20)
    assert torch.equal(load_goal_set(Path("a/validation.safetensors")).goals, drawn.goals)


def test_the_stage_writes_the_same_bytes_and_disjoint_goals(project_files, capsys):
    for folder in ("a", "b"):
        generate_goals.main("cheetah_vel", Path(folder))
    validation, test = (load_goal_set(Path(f"a/{name}.safetensors")) for name in ("validation", "test"))
    assert (len(validation.goals), len(test.goals)) == (20, 40)
    assert not set(validation.goals.flatten().tolist()) & set(test.goals.flatten().tolist())
    for name in ("validation", "test"):
        assert Path(f"a/{name}.safetensors").read_bytes() == Path(f"b/{name}.safetensors").read_bytes()
    with pytest.raises(typer.Exit):
        generate_goals.main("cheetah", Path("c"))
    assert "unknown task family 'cheetah'; known: cheetah_vel" in capsys.readouterr().err
    assert not Path("c").exists()
