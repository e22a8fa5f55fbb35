"""What a client makes of a folder that is to be uploaded."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from stoker.client.uploads import Upload
from stoker.errors import InvalidInput


def image_folder(root: Path) -> Path:
    """Two classes, two images each, for training and for testing."""
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (8, 8), (100 * number, 50 * index, 0)).save(root / split / name / f"{index}.png")
    (root / ".hidden").write_text("not for upload")
    return root


def test_the_same_folder_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    one, two = (Upload.of(image_folder(tmp_path / name)) for name in ("one", "a-longer-name"))
    content = b"".join(one.pieces())
    assert len(content) == one.size
    assert one.sha256() == two.sha256()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
    assert names == sorted(names)
    assert len(names) == 8


def test_what_cannot_be_uploaded_is_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    (folder / "train" / "cat" / "link.png").symlink_to("0.png")
    with pytest.raises(InvalidInput, match=r"link\.png is a link"):
        Upload.of(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no files"):
        Upload.of(tmp_path / "empty")
    with pytest.raises(InvalidInput, match="cannot read"):
        Upload.of(tmp_path / "nowhere")


def test_a_file_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data")
    upload = Upload.of(folder)
    (folder / "train" / "dog" / "1.png").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        list(upload.pieces())
