"""Sent into a worker's container of another host: who gets in at PostgreSQL, Redis and the API, and how."""

import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import psycopg
import redis

CA, OTHERS_CA = "/run/secrets/ca_crt", "/etc/ssl/certs/ca-certificates.crt"
database = Path("/run/secrets/database_url").read_text().replace("postgresql+psycopg:", "postgresql:")
broker = urlsplit(Path("/run/secrets/broker_url").read_text())
api = sys.argv[1]


def postgres(**how: Any) -> object:
    """Connect and ask."""
    with psycopg.connect(database, connect_timeout=5, **how) as connection:
        return connection.execute("SELECT 1").fetchone()


def ask_redis(**how: Any) -> object:
    """Connect and ask."""
    server = redis.Redis(broker.hostname or "", broker.port or 0, 0, broker.password, username="stoker",
                         socket_timeout=5, **how)  # fmt: skip
    return server.ping()


def ask_api(url: str, authority: str) -> object:
    """Connect and ask; raises too where the answer is none of the API's."""
    answer = httpx.get(
        f"{url}/healthz", verify=ssl.create_default_context(cafile=authority), trust_env=False, timeout=10
    )
    return answer.raise_for_status()


def attempt(name: str, ask: Callable[[], object]) -> None:
    """Try it, and say how it went."""
    try:
        ask()
    except (psycopg.OperationalError, redis.RedisError, httpx.HTTPError) as error:
        sys.stdout.write(f"{name}: out ({str(error).splitlines()[0][:200]})\n")
    else:
        sys.stdout.write(f"{name}: in\n")


told = dict(parse_qsl(broker.query))
attempt("PostgreSQL as told", postgres)
attempt("PostgreSQL without TLS", lambda: postgres(sslmode="disable"))
attempt("PostgreSQL other authority", lambda: postgres(sslrootcert=OTHERS_CA))
attempt("Redis as told", lambda: ask_redis(ssl=True, **told))
attempt("Redis without TLS", ask_redis)
attempt("Redis other authority", lambda: ask_redis(ssl=True, **told | {"ssl_ca_certs": OTHERS_CA}))
attempt("API as told", lambda: ask_api(api, CA))
attempt("API without TLS", lambda: ask_api(api.replace("https:", "http:"), CA))
attempt("API other authority", lambda: ask_api(api, OTHERS_CA))
