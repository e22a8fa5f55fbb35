"""``python -m tests.faults.quick MODULE …``: run a module that loads torchvision when somebody asks it for something.

The victims ask it for nothing, and half of what a fork server loads at its start is torchvision.
"""

import importlib
import importlib.util
import runpy
import sys

FIRST, LATER = "torch", "torchvision"  # while torch is loaded it looks into every module there is


def put_off(name: str) -> None:
    """Let a module be loaded by the first use of one of its names."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{name} is not installed", name=name)
    loader = spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)


def main() -> None:
    """Run the module that the arguments name."""
    importlib.import_module(FIRST)
    put_off(LATER)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
