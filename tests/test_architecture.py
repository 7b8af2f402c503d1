"""The arrows of docs/architecture.md, and what the DVC graph declares, against what the code does."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from metalib.locomotion.families import FAMILIES
from tools.import_closure import import_closure

ROOT = Path(__file__).resolve().parent.parent
GRAPH = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


def body(name):
    """Return what a stage does, be it one or one of many."""
    return GRAPH[name].get("do", GRAPH[name])


# Each part of metalib, and the parts it may import.
BASE = {"networks", "losses", "randomness"}
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "storage": {"errors"},
    "compilation": {"errors"},
    "randomness": set(),
    "networks": set(),
    "losses": {"networks"},
    "statistics": set(),
    "tasks": BASE | {"storage"},
    "threads": set(),
    "locomotion": BASE | {"compilation", "errors", "storage", "threads"},
    "update_rules": BASE | {"compilation"},
    "meta_parameters": {"update_rules"},
    "adaptation": {"losses", "update_rules"},
    "policy_adaptation": {"adaptation", "locomotion", "losses", "meta_parameters", "threads", "update_rules"},
    "meta_training": BASE
    | {
        "adaptation",
        "compilation",
        "errors",
        "locomotion",
        "meta_parameters",
        "policy_adaptation",
        "storage",
        "threads",
    }
    | {"update_rules"},
    "trained_policy": {"locomotion", "policy_adaptation", "storage", "threads", "update_rules"},
    "policy_evaluation": {"locomotion", "policy_adaptation", "trained_policy", "update_rules"},
    "trained_method": BASE | {"adaptation", "meta_parameters", "storage", "update_rules"},
    "evaluation": BASE | {"adaptation", "meta_parameters", "trained_method", "update_rules"},
    "metric_learning": {"losses", "networks"},
    "score_files": {"storage"},
    "return_files": {"storage"},
    "reporting": {"losses", "randomness", "return_files", "score_files", "statistics", "storage", "tasks"},
}


def part(path):
    return path.relative_to(ROOT / "metalib").parts[0].removesuffix(".py")


def imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = [path for path in sorted((ROOT / "metalib").rglob("*.py")) if path != ROOT / "metalib" / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    assert part(path) in ALLOWED, "a new part of metalib needs its arrows stated here and in docs/architecture.md"
    allowed = ALLOWED[part(path)] | {part(path)}
    for name in imported(path):
        package, _, rest = name.partition(".")
        assert package not in ("stages", "tools", "tests"), f"{path} imports {name}"
        if package == "metalib" and rest:
            assert rest.split(".")[0] in allowed, f"{path} imports {name}"


def test_arrows_have_no_cycle():
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {name for name, needs in ALLOWED.items() if name not in done and needs <= done}
        assert ready, f"cycle among {set(ALLOWED) - done}"
        done |= ready


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_depends_on_every_module_it_imports(name):
    declared = {Path(dep) for dep in body(name)["deps"]}
    for module in import_closure(f"stages.{name}", ROOT):
        covered = module in declared or any(parent in declared for parent in module.parents)
        if module.name == "__init__.py" and len(module.parts) == 2 and module.parts[0] == "stages":
            continue  # a docstring
        assert covered, f"dvc.yaml: stage {name} imports {module}, which its deps lack"


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_does_not_depend_on_modules_it_does_not_import(name):
    closure = import_closure(f"stages.{name}", ROOT)
    for dep in map(Path, body(name)["deps"]):
        if dep.parts[0] in ("metalib", "stages"):
            assert dep in closure or any(dep in module.parents for module in closure), f"{name}: {dep} is not imported"


SHARED_MODULES = {
    "report": ("ablation_report", "classification_report", "locomotion_report"),
    "meta_train_ablation": ("ablation",),
    "evaluate_ablation": ("ablation",),
}
"""Modules of stages that read settings for the stage."""


def sections_read(name):
    """Return the sections of ``params`` that the stage's module uses: every ``<something>params.<section>``."""
    read = set()
    for module in (*SHARED_MODULES.get(name, ()), name):
        for node in ast.walk(ast.parse((ROOT / "stages" / f"{module}.py").read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("params", "run.params"):
                read.add(node.attr)
    return read - {"model_dump", "model_copy"}


BY_TASK = ("meta_train_policy", "train_policy_baseline")
"""Stages that declare settings key by key, so that what is edited for one task or body reruns what it concerns."""


@pytest.mark.parametrize("name", GRAPH)
def test_a_stage_declares_every_section_it_reads(name):
    settings = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    counts = settings["scales"]["default"]
    expected = set()
    by_key = name in BY_TASK
    for section in sections_read(name):
        expected |= of_section(section, settings[section], by_key)
        if section in counts:
            expected |= of_section(f"scales.${{scale}}.{section}", counts[section], by_key)
    assert declared_params(name) == expected


def of_section(section, settings, by_key):
    """Return what a stage is to declare of a section: the section, or every key of it, of those by task or body one."""
    if not by_key:
        return {section}
    kinds = {frozenset(FAMILIES): ".${key}", frozenset(family.body for family in FAMILIES.values()): ".${item.body}"}
    return {
        f"{section}.{key}{kinds.get(frozenset(value), '') if isinstance(value, dict) else ''}"
        for key, value in settings.items()
    }


def declared_params(name):
    """Return the sections that a stage declares, with those that its items name."""
    declared = body(name).get("params", [])
    items = GRAPH[name].get("foreach", {"": {}})
    if isinstance(items, list):  # of plain names
        return set(declared)
    return {
        param.replace("${item.settings}", item.get("settings", "")) for param in declared for item in items.values()
    }


def test_import_closure_follows_packages_and_skips_type_checking(tmp_path):
    for name, text in {
        "metalib/__init__.py": "",
        "metalib/a.py": "from metalib.b import c\nimport os",
        "metalib/b/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import metalib.e",
        "metalib/b/c.py": "def f():\n    import metalib.d",
        "metalib/d.py": "",
        "metalib/e.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {str(path) for path in import_closure("metalib.a", tmp_path)}
    assert found == {
        "metalib/__init__.py",
        "metalib/a.py",
        "metalib/b/__init__.py",
        "metalib/b/c.py",
        "metalib/d.py",
    }
