"""Put pip into this environment when Python came without it: its wheel from the package index, digest checked."""

import hashlib
import html.parser
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

WHEEL = re.compile(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl")


class Links(html.parser.HTMLParser):
    """Collect the addresses on a page of the simple index."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _open(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the index that the user chose
        content: bytes = answer.read()
        return content


def _newest(page: str) -> tuple[str, str, str]:
    """Return address, file name and SHA-256 of the newest released wheel of pip."""
    links = Links()
    links.feed(_open(page).decode())
    wheels = []
    for link in links.found:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(page, link))
        name = parts.path.rpartition("/")[2]
        digest = urllib.parse.parse_qs(parts.fragment).get("sha256", [""])[0]
        if (match := WHEEL.fullmatch(name)) and digest:
            version = tuple(int(number) for number in match[1].split("."))
            wheels.append((version, parts._replace(fragment="").geturl(), name, digest))
    return max(wheels)[1:]


def main() -> None:
    """Fetch the wheel and let it install itself."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    url, name, digest = _newest(f"{index}/pip/")
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / name
        wheel.write_bytes(_open(url))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
            sys.exit(f"{name}: its bytes do not match the digest of the index")
        subprocess.run([sys.executable, f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)], check=True)


if __name__ == "__main__":
    main()
