"""Settings: what is accepted, what is refused, and that .env.example shows every one."""

import dataclasses
import re
from pathlib import Path

import pytest

from stoker.errors import SettingInvalid
from stoker.settings import Settings, load

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"


def example() -> dict[str, str]:
    """Name and value of each line of .env.example, without the comment."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [re.fullmatch(r"(STOKER_\w+)=(\S*)(?:\s+#.*)?", line) for line in lines]
    assert all(pairs)
    return {pair[1]: pair[2] for pair in pairs if pair}


def test_the_example_shows_every_setting_with_its_default() -> None:
    given = example()
    assert set(given) == {f"STOKER_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert load(given) == Settings()
    for field in dataclasses.fields(Settings):
        default = getattr(Settings(), field.name)
        if default is not None and field.name != "home":
            assert given[f"STOKER_{field.name.upper()}"], f"{field.name} has a default that the example does not show"


def test_other_variables_are_nobodys_business() -> None:
    assert load({"PATH": "/bin", "STOKE": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("STOKER_LEASE_SECNODS", "3", "did you mean STOKER_LEASE_SECONDS"),
        ("STOKER_LEASE_SECONDS", "3s", "is not a number"),
        ("STOKER_LEASE_SECONDS", "nan", "out of range"),
        ("STOKER_LEASE_SECONDS", "0", "out of range"),
        ("STOKER_LEASE_SECONDS", "1e9", "out of range"),
        ("STOKER_WORKER_ATTEMPTS", "-1", "out of range"),
        ("STOKER_WORKER_ATTEMPTS", "1.5", "is not a number"),
        ("STOKER_HOME_FILE", "/etc/hostname", "no such setting"),
        ("STOKER_TOKEN_FILE", "/does/not/exist", "cannot read"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingInvalid, match=re.escape(words)) as caught:
        load({name: value})
    assert caught.value.field == name


def test_a_secret_comes_from_a_file_that_only_its_user_can_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("stk_secret\n")
    path.chmod(0o600)
    assert load({"STOKER_TOKEN_FILE": str(path)}).token == "stk_secret"
    path.chmod(0o604)
    with pytest.raises(SettingInvalid, match="can be read by everybody") as caught:
        load({"STOKER_TOKEN_FILE": str(path)})
    assert "stk_secret" not in str(caught.value)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(SettingInvalid, match="is empty"):
        load({"STOKER_TOKEN_FILE": str(path)})


def test_intervals_derive_from_the_lease() -> None:
    settings = load({"STOKER_LEASE_SECONDS": "2", "STOKER_HOME": "~/x"})
    assert settings.renew_seconds == 0.4
    assert settings.home == Path.home() / "x"
    assert settings.cache == settings.home / "cache"
