# mypy: disable-error-code="func-returns-value"
"""Attacks through sockets."""

import encodings.idna  # noqa: F401 - socket loads it late, when its file cannot be read any more
import socket
from typing import Any

from tests.sandbox.attack import attack


@attack
def reach_the_broker(targets: dict[str, Any]) -> object:
    return socket.create_connection(("127.0.0.1", targets["port"]), 1)


@attack
def make_a_datagram_socket(targets: dict[str, Any]) -> object:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@attack
def ask_the_kernel_for_its_addresses(targets: dict[str, Any]) -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


def _connect(address: str) -> object:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


@attack
def reach_postgresql_by_its_path(targets: dict[str, Any]) -> object:
    return _connect(targets["postgres"])


@attack
def reach_redis_by_its_path(targets: dict[str, Any]) -> object:
    return _connect(targets["redis"])


@attack
def reach_any_socket_by_its_path(targets: dict[str, Any]) -> object:
    return _connect(targets["socket"])


@attack
def reach_an_abstract_socket(targets: dict[str, Any]) -> object:
    return _connect("\0" + targets["abstract"])


@attack
def send_a_datagram_to_a_path(targets: dict[str, Any]) -> object:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # connected, and sends elsewhere all the same
    return one.sendto(b"x", targets["datagrams"])


@attack
def bind_a_pair_to_a_path(targets: dict[str, Any]) -> object:
    one, _ = socket.socketpair()
    return one.bind("bound")
