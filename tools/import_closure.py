"""Which of the project's files a module needs: modules it imports, directly or through others, and their C++ sources.

That is what a DVC stage must depend on.
"""

import ast
import re
import sys
from pathlib import Path

PACKAGES = ("metalib", "stages", "tools")


def import_closure(module: str, root: Path) -> set[Path]:
    """Return the files, relative to ``root``, of ``module`` and of all project modules it leads to.

    Reads imports from the syntax tree and runs nothing. Imports under ``if TYPE_CHECKING`` do not count.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, root)
        if path is None or path in found:
            continue
        source = (root / path).read_text()
        found |= {path, *_cpp_sources(source, path, root)}
        waiting += _imported_names(source)
        waiting += [name.rpartition(".")[0]]
    return found


def _file(module: str, root: Path) -> Path | None:
    if module.split(".", maxsplit=1)[0] not in PACKAGES:
        return None
    base = Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / candidate).is_file():
            return candidate
    return None


def _cpp_sources(source: str, path: Path, root: Path) -> list[Path]:
    """Return the C++ files beside a module that it names, in full or as the suffix of its own name."""
    strings = {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    named = [path.with_suffix(s) if s == ".cpp" else path.with_name(s) for s in strings if re.fullmatch(r"\w*\.cpp", s)]
    return [file for file in named if (root / file).is_file()]


def _imported_names(source: str) -> list[str]:
    names: list[str] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        waiting += ast.iter_child_nodes(node)
    return names


if __name__ == "__main__":
    for file in sorted(import_closure(sys.argv[1], Path.cwd())):
        print(file)
