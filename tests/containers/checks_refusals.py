"""Bad input to the scripts and the services: one clear line, exit code 2, and no secret in it."""

import os

from tests.containers.engine import HOOK
from tests.containers.installation import WORKER_USER, Installation


def _refused(stack: Installation, *arguments: str, **how: dict[str, str]) -> str:
    """The one line with which ``make compose-up`` refuses."""
    done = stack.script("up.sh", *arguments, check=False, **how)
    assert done.returncode == 2, done.stderr[-500:]
    assert done.stderr.count("\n") == 1, done.stderr[-500:]
    assert not [text for text in stack.secrets().values() if text in done.stderr]
    return done.stderr


def missing_secret(stack: Installation) -> None:
    """A secret that is missing, or that everybody can read, is named before anything is started."""
    secret = stack.folder / "secrets/broker_url"
    aside = secret.rename(secret.with_name("aside"))
    try:
        assert "secrets/broker_url is missing" in _refused(stack)
    finally:
        aside.rename(secret)
    mode = secret.stat().st_mode
    secret.chmod(0o444)
    try:
        assert "secrets/broker_url can be read by everybody" in _refused(stack)
    finally:
        secret.chmod(mode)


def newer_secrets(stack: Installation) -> None:
    """An installation of before a secret was needed gets that one; what was there stays as it was."""
    before = stack.secrets()
    for name in ("secret_key", "metrics_token"):
        (stack.folder / "secrets" / name).unlink()
    try:
        assert "made in ./secrets: secret_key metrics_token;" in stack.script("secrets.sh").stdout
        after = stack.secrets()
        assert after.keys() == before.keys()
        assert {name for name in after if after[name] != before[name]} == {"secret_key", "metrics_token"}
    finally:
        for name in ("secret_key", "metrics_token"):
            (stack.folder / "secrets" / name).write_text(before[name])


def no_toolkit(stack: Installation) -> None:
    """The GPU profile without NVIDIA's toolkit is refused with what to install."""
    hook = stack.engine.programs / HOOK
    aside = hook.rename(hook.with_name("aside"))
    try:
        assert "no NVIDIA Container Toolkit" in _refused(stack, "--profile", "gpu")
    finally:
        aside.rename(hook)


def unusable_settings(stack: Installation) -> None:
    """A setting that is unknown, a secret that others can read or that is not there: exit code 2 and one line."""
    for setting, service, words in (
        ("STOKER_LEASE_SECOND=5", "api", "did you mean STOKER_LEASE_SECONDS?"),
        ("STOKER_BROKER_URL_FILE=/etc/passwd", "api", "/etc/passwd can be read by everybody"),
        ("STOKER_DATABASE_URL_FILE=/run/secrets/absent", "worker-cpu", "cannot read /run/secrets/absent"),
    ):
        _one_line(stack, service, words, "--env", setting)


def wrong_password(stack: Installation) -> None:
    """A password that the database refuses: exit code 2 and one line, without the password."""
    wrong = stack.folder / "wrong_url"
    wrong.write_text("postgresql+psycopg://stoker:not-the-password@postgres/stoker")
    os.chown(wrong, int(WORKER_USER), int(WORKER_USER))
    wrong.chmod(0o400)
    options = ("--volume", f"{wrong}:/run/wrong:ro", "--env", "STOKER_DATABASE_URL_FILE=/run/wrong")
    for service in ("api", "worker-cpu"):
        _one_line(stack, service, "STOKER_DATABASE_URL: its user or password is refused", *options)


def _one_line(stack: Installation, service: str, words: str, *options: str) -> None:
    run = ("run", "--rm", "--no-deps", "-T", *options, service)
    done = stack.engine.run(
        "docker", "compose", *run, folder=stack.folder, variables=stack.variables, check=False, seconds=120
    )
    lines = [line for line in done.stderr.splitlines() if "STOKER_" in line]
    assert (done.returncode, len(lines)) == (2, 1), done.stderr[-1000:]
    assert words in lines[0]
    assert "not-the-password" not in done.stderr


CHECKS = (missing_secret, newer_secrets, no_toolkit, unusable_settings, wrong_password)
