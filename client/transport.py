"""Requests to the API: time-outs, retries of what may be repeated, and errors as exceptions."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from stoker.client.access import Access
from stoker.client.errors import ServerError, ServerUnreachable, rebuild
from stoker.errors import StokerError

PREFIX = "/api/v1"
BUSY = frozenset({502, 503, 504})  # the server, or a proxy before it, for the moment
PAUSES_SECONDS = (0.1, 0.3, 0.8)  # between the tries of one request
LONGEST_PAUSE_SECONDS = 10.0  # however long Retry-After asks for


class Transport:
    """One server, as one token's holder sees it. Threads may share it."""

    def __init__(self, access: Access) -> None:
        self.url = access.url
        headers = {"User-Agent": "stoker", "Accept": "application/json"}
        if access.token:
            headers["Authorization"] = f"Bearer {access.token}"
        self._http = httpx.Client(
            base_url=access.url,
            headers=headers,
            timeout=httpx.Timeout(30, connect=5),
            trust_env=not is_loopback(access.url),  # a proxy of the environment cannot reach our own machine
            follow_redirects=False,  # a token goes nowhere but where it was sent
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Read one JSON document; parameters that are None are left out. Tried up to four times."""
        return self._answer(self._repeated("GET", path, params=given(params)))

    def post(self, path: str, document: Any = None, *, key: str | None = None) -> Any:
        """Send one JSON document; with an Idempotency-Key it is tried up to four times."""
        headers = {"Idempotency-Key": key} if key else {}
        send = self._repeated if key else self._once
        return self._answer(send("POST", path, json=document, headers=headers))

    def ask(self, path: str, **params: Any) -> Any:
        """POST something that is the same twice as once, such as a cancel; tried up to four times."""
        return self._answer(self._repeated("POST", path, params=given(params)))

    def send(self, method: str, path: str, document: Any = None, **params: Any) -> Any:
        """Send one JSON document, or none, by another method; never repeated."""
        return self._answer(self._once(method, path, json=document, params=given(params)))

    def upload(self, path: str, body: Iterable[bytes], *, content_type: str, size: int, **params: Any) -> Any:
        """Send ``size`` bytes as they come; never repeated. The server may check them for ten minutes."""
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        timeout = httpx.Timeout(60, connect=5, read=600)
        return self._answer(
            self._once("POST", path, content=body, headers=headers, params=given(params), timeout=timeout)
        )

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], read_seconds: float, **params: Any
    ) -> Iterator[httpx.Response]:
        """Open a long answer; the caller reads it. Raises what ``get`` raises, ServerUnreachable while reading too."""
        timeout = httpx.Timeout(30, connect=5, read=read_seconds)
        try:
            with self._http.stream(
                "GET", PREFIX + path, headers=dict(headers), params=given(params), timeout=timeout
            ) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._error(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, PREFIX + path, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _repeated(self, method: str, path: str, **options: Any) -> httpx.Response:
        for pause in PAUSES_SECONDS:
            try:
                response = self._once(method, path, **options)
            except ServerUnreachable:
                wait = pause
            else:
                if response.status_code not in BUSY:
                    return response
                wait = _retry_after(response, pause)
            time.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads clients that were refused together
        return self._once(method, path, **options)

    def _answer(self, response: httpx.Response) -> Any:
        if not response.is_success:
            raise self._error(response)
        if response.status_code == 204:
            return None
        try:
            return response.json()
        except ValueError:
            raise ServerError(response.status_code, f"{self.url} is no Stoker API: the answer is not JSON") from None

    def _error(self, response: httpx.Response) -> StokerError:
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            return ServerError(response.status_code, response.reason_phrase or "no reason given")
        return rebuild(response.status_code, problem)

    def _unreachable(self, error: httpx.HTTPError) -> ServerUnreachable:
        return ServerUnreachable(self.url, str(error) or type(error).__name__)


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out parameters that are None; write true and false as the API reads them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in params.items()
        if value is not None
    }


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(response: httpx.Response, pause: float) -> float:
    try:
        return min(max(float(response.headers.get("Retry-After", "")), pause), LONGEST_PAUSE_SECONDS)
    except ValueError:
        return pause
