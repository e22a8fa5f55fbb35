"""Where in an archive or a folder the classes are. Needs neither torch nor numpy: the API counts by it too.

Known layouts, all of them possibly under more folders: ``train/CLASS/…`` and ``test/CLASS/…``; or ``CLASS/…`` alone,
where every fifth image of a class, in the order of names, is a test image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

TEST_FOLDERS = frozenset({"test", "val", "valid", "validation"})
TEST_EVERY = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """How the names of images tell their class; a name that is no image's says nothing about the layout."""

    depth: int  # folders around the class folders, or around train and test
    divided: bool  # whether there is a train folder

    @classmethod
    def of(cls, images: Iterable[str]) -> Self | None:
        """Find the layout from the names of all images; None when no image lies in a folder."""
        paths = [name.split("/") for name in images if "/" in name]
        if not paths:
            return None
        depth = 0
        while all(len(parts) > depth + 2 for parts in paths) and len({parts[depth] for parts in paths}) == 1:
            if paths[0][depth] == "train":
                break
            depth += 1
        return cls(depth, any(parts[depth] == "train" and len(parts) > depth + 2 for parts in paths))

    def place(self, name: str) -> tuple[str, str] | None:
        """The part (train, test, or all where nothing is divided) and the class of an image; None: left out."""
        parts = name.split("/")[self.depth :]
        if not self.divided:
            return ("all", parts[0]) if len(parts) > 1 else None
        if len(parts) < 3 or parts[0] not in TEST_FOLDERS | {"train"}:
            return None
        return ("train" if parts[0] == "train" else "test", parts[1])
