"""TCP ports for API and Flower, and the question whether they answer."""

import errno
import http.client
import os
import socket

from stoker.errors import SettingInvalid


def choose_port(setting: str, host: str, wanted: int, last: int = 0) -> int:
    """The port to listen on.

    Args:
        setting: The variable that sets it, for the message.
        host: The address to listen on.
        wanted: What was configured; 0: any free one.
        last: The one of the last run, taken again when free, so that links stay valid.

    Raises SettingInvalid: the configured port is in use or not allowed.
    """
    if wanted:
        if problem := _problem(host, wanted):
            fix = f"set {setting} to another one, or to 0 for any free one"
            raise SettingInvalid(setting, f"cannot listen on port {wanted} of {host}: {problem}", fix)
        return wanted
    if last and not _problem(host, last):
        return last
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _problem(host: str, port: int) -> str | None:
    try:
        with socket.socket(_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that was just closed is no user
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        return "it is in use" if number == errno.EADDRINUSE else os.strerror(number) if number else str(error)
    return None


def reachable_host(host: str) -> str:
    """Where to reach from here what listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def url_of(host: str, port: int) -> str:
    """An address for people and programs on this machine."""
    host = reachable_host(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def fetch(host: str, port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Ask a server on this machine: status and body; status 0 when it does not answer within two seconds."""
    connection = http.client.HTTPConnection(reachable_host(host), port, timeout=2)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
