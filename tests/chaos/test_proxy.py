"""The proxy passes bytes on, and does to them what it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy
from tests.support.helpers import wait_until

#: No answer takes that long on loopback, not on a busy machine either.
TIMEOUT_S = 30.0


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(TIMEOUT_S)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo_port) as proxy:
        yield proxy


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT_S)


def echoed(client: socket.socket, data: bytes) -> bytes:
    """Send, and read as much as was sent; less if the connection ends."""
    sender = threading.Thread(target=client.sendall, args=[data])
    sender.start()
    received = b""
    while len(received) < len(data) and (part := client.recv(65536)):
        received += part
    sender.join(TIMEOUT_S)
    return received


def is_reset(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_bytes_pass_in_both_directions_in_order(proxy: Proxy) -> None:
    # Given more bytes than all buffers on the way hold
    data = bytes(range(256)) * 40_000

    # When they go to a server that sends them back
    with connected(proxy) as client:
        received = echoed(client, data)

    # Then they are the same
    assert received == data


def test_the_end_of_one_direction_is_passed_on(proxy: Proxy) -> None:
    # Given a client that has said all it has to say
    with connected(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)

        # When it reads to the end, then it has the whole answer
        parts = iter(lambda: client.recv(1024), b"")
        assert b"".join(parts) == b"last words"
    wait_until(lambda: proxy.connection_count == 0, TIMEOUT_S, "no connection left")


def test_latency_delays_each_direction(proxy: Proxy) -> None:
    # Given a connection, open before the network gets slow
    with connected(proxy) as client:
        assert echoed(client, b"fast") == b"fast"
        proxy.latency_ms = 150

        # When something goes there and back
        begin_s = time.monotonic()
        assert echoed(client, b"slow") == b"slow"

        # Then that takes twice the delay at least
        assert time.monotonic() - begin_s >= 0.3


def test_bandwidth_holds_for_all_connections_together(proxy: Proxy) -> None:
    # Given a narrow network and two connections
    proxy.bytes_per_s = 100_000
    with connected(proxy) as one, connected(proxy) as other:
        # When both send at once
        begin_s = time.monotonic()
        received: list[bytes] = []
        threads = [
            threading.Thread(target=lambda c=c: received.append(echoed(c, bytes(20_000))))
            for c in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)

        # Then the second one has waited for the first
        assert received == [bytes(20_000)] * 2
        assert time.monotonic() - begin_s >= 0.4


def test_a_silent_network_holds_bytes_back_and_loses_none(proxy: Proxy) -> None:
    # Given a connection through a network that has gone silent
    with connected(proxy) as client:
        proxy.is_silent = True
        client.sendall(b"are you there?")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1024)

        # When it speaks again, then the answer comes
        proxy.is_silent = False
        client.settimeout(TIMEOUT_S)
        assert client.recv(1024) == b"are you there?"


def test_dropped_connections_are_reset_and_new_ones_served(proxy: Proxy) -> None:
    # Given an open connection
    with connected(proxy) as client:
        assert echoed(client, b"open") == b"open"

        # When all are dropped
        proxy.drop_connections()

        # Then it is reset
        wait_until(lambda: is_reset(client), TIMEOUT_S, "the reset")

    # And the next one is served
    with connected(proxy) as client:
        assert echoed(client, b"again") == b"again"


def test_a_cut_network_resets_all_until_it_is_healed(proxy: Proxy) -> None:
    # Given a cut network
    with connected(proxy) as client:
        assert echoed(client, b"open") == b"open"
        proxy.is_cut = True
        wait_until(lambda: is_reset(client), TIMEOUT_S, "the reset")

    # Then a new connection has no chance either
    with connected(proxy) as client:
        assert is_reset(client)

    # Until it is healed
    proxy.is_cut = False
    with connected(proxy) as client:
        assert echoed(client, b"healed") == b"healed"


def test_a_client_of_a_target_that_does_not_listen_is_reset() -> None:
    # Given a port where nobody listens
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy("127.0.0.1", nobody.getsockname()[1]) as proxy, connected(proxy) as client:
            # When a client comes, then it is reset
            assert is_reset(client)


def test_closing_resets_connections_and_leaves_no_thread(echo_port: int) -> None:
    # Given a proxy with an open connection
    threads = threading.active_count()
    proxy = Proxy("127.0.0.1", echo_port)
    proxy.start()
    with connected(proxy) as client:
        assert echoed(client, b"open") == b"open"

        # When it is closed
        proxy.close()

        # Then nothing is left
        assert is_reset(client)
    with pytest.raises(ConnectionError):
        connected(proxy)
    wait_until(lambda: threading.active_count() <= threads, TIMEOUT_S, "no thread left")


def test_a_proxy_that_was_never_started_closes_quietly() -> None:
    # Given one that was never started
    proxy = Proxy("127.0.0.1", 1)

    # When it is closed, and asked to drop what it doesn't have, then nothing happens
    proxy.close()
    proxy.is_cut = True
    assert proxy.connection_count == 0
