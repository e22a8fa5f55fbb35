"""What an uploaded archive of class folders holds: every member is checked, no image is decoded, nothing extracted."""

import zipfile
from collections import Counter
from pathlib import Path

from stoker.errors import InvalidInput
from stoker.jobs.datasets import Summary
from stoker.quoting import quoted
from stoker.training import archives
from stoker.training.failure import TrainingFailed
from stoker.training.layout import TEST_EVERY, Layout

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a")


def summarise(path: Path) -> Summary:
    """Read an archive from end to end and count its images.

    Raises InvalidInput: it is damaged or hostile, or nothing could be trained on it.
    """
    names, images = [], []
    try:
        for member, _ in archives.members(path):
            names.append(member.name)
            if not member.problem and is_image(member.content):
                images.append(member.name)
    except TrainingFailed as error:
        named = f"{path.name} is damaged"  # what was sent has no name
        evidence = error.evidence.replace(named, "what was sent is damaged")
        raise InvalidInput("archive", evidence, error.fix) from None
    return _counted("zip" if zipfile.is_zipfile(path) else "tar", names, images)


def is_image(content: bytes) -> bool:
    """Whether the first bytes are those of a kind of image that can be trained on."""
    return content.startswith(SIGNATURES) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


def _counted(kind: str, names: list[str], images: list[str]) -> Summary:
    if not images:
        raise InvalidInput("archive", f"{len(names):,} files, none of them an image", "send class folders of images")
    layout = Layout.of(images)
    if layout is None:
        raise InvalidInput("archive", "no image lies in a class folder", "name files CLASS/image.jpg")
    placed = Counter(place for name in images if (place := layout.place(name)))
    if layout.divided and not any(
        part == "test" for part, _ in placed
    ):  # a train folder alone: some of it becomes the test
        placed = Counter({("all", label): count for (_, label), count in placed.items()})
    train: Counter[str] = Counter()
    test: Counter[str] = Counter()
    for (part, label), count in placed.items():
        tested = count if part == "test" else count // TEST_EVERY if part == "all" else 0
        train[label] += count - tested
        test[label] += tested
    return _checked(kind, +train, +test)


def _checked(kind: str, train: Counter[str], test: Counter[str]) -> Summary:
    classes = sorted(train)
    if len(classes) < 2:
        found = f"only one class, {quoted(classes[0])}," if classes else "no image in a class folder"
        raise InvalidInput("archive", f"{found} to train on", "send images of two or more classes")
    if not test:
        raise InvalidInput("archive", "no test images", "add test/CLASS/…, or send five images or more of each class")
    if untrained := sorted(set(test) - set(train)):
        raise InvalidInput(
            "archive", f"no training images of class {quoted(untrained[0])}", "add some, or remove its tests"
        )
    return Summary(kind, classes, train.total(), test.total())
