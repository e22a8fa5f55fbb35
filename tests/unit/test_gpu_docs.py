"""docs/gpu.md lists what has not run on a GPU; what it names must exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\S+\.(?:py|yml)) \| (`[^|]+`) \| .+ \|$", re.MULTILINE)
ASKS = re.compile(r"torch\.cuda|pynvml|== \"cuda\"")


def listed() -> dict[str, set[str]]:
    """File -> the names that the table gives of it."""
    found: dict[str, set[str]] = {}
    for file, names in ROW.findall((ROOT / "docs" / "gpu.md").read_text()):
        found.setdefault(file, set()).update(re.findall(r"`([^`]+)`", names))
    return found


def test_each_function_and_class_of_the_list_exists() -> None:
    table = listed()
    assert len(table) > 15
    for file, names in table.items():
        text = (ROOT / file).read_text()
        if file.endswith(".py"):
            kinds = (ast.FunctionDef, ast.ClassDef)
            assert names <= {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)}, file
        else:
            assert all(f"\n  {name}:" in text for name in names), file


def test_no_file_that_asks_for_a_gpu_is_left_out() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for part in ("api", "client", "jobs", "messages", "stack", "training", "workers")
        for path in (ROOT / part).rglob("*.py")
        if ASKS.search(path.read_text())
    }
    assert len(asking) > 5
    assert asking <= listed().keys()
