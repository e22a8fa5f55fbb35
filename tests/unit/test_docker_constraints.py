"""docker/constraints.txt pins whatever the images' extras bring, beside torch's own."""

from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "docker/constraints.txt"
TORCH = {"torch", "torchvision"}  # pinned in docker/Dockerfile, with what they bring
EXTRAS = frozenset({"api", "flower", "worker"})


def _brought(
    name: str, extras: frozenset[str], known: set[tuple[str, frozenset[str]]]
) -> set[tuple[str, frozenset[str]]]:
    """Add to ``known`` what a package requires, and what that requires; returns it."""
    known.add((name, extras))
    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        needed = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras | {""})
        one = (str(canonicalize_name(wanted.name)), frozenset(wanted.extras))
        if needed and one[0] not in TORCH and one not in known:
            _brought(*one, known)
    return known


def test_every_library_of_the_images_is_pinned() -> None:
    pinned = {line.split("==")[0] for line in CONSTRAINTS.read_text().splitlines() if "==" in line}
    brought = {name for name, _ in _brought("stoker", EXTRAS, set())} - {"stoker"}
    assert brought >= {"celery", "matplotlib", "uvicorn"}
    assert brought - pinned == set()
