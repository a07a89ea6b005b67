"""A TCP proxy on loopback that is slow, narrow, silent or cut when a test asks for it.

Hides: the thread and its event loop, the flow control between both sides. What toxiproxy does for
programs of its own, in process and with nothing to install.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass, field
from types import TracebackType

#: Bytes that are read in one go; small enough that a narrow link delivers evenly.
CHUNK_BYTES = 16 * 1024

#: Chunks on their way in one direction of one connection, then the sender is held back.
CHUNKS_IN_FLIGHT_MAX = 256

#: How long a start or an end of the thread may take.
THREAD_TIMEOUT_S = 30.0

#: Between two looks at whether a silent link speaks again.
SILENCE_POLL_S = 0.02


@dataclass
class Link:
    """One direction of all connections together: chunks pass one after the other."""

    free_at_s: float = 0.0


@dataclass(eq=False)
class Connection:
    """Both ends of one connection through the proxy."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def abort(self) -> None:
        """Reset both ends; what is on its way is lost."""
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Passes on what comes to a free port of 127.0.0.1, until its user makes that hard.

    The attributes may be set at any time, from any thread, and hold for connections that are open,
    too. They are shared by all connections.

    Args:
        target_host, target_port: Where bytes go; need not listen yet. A client whose connection
            can't be passed on is reset.
        server_ssl: With it, clients have to speak TLS, and the target gets what was inside.

    Attributes:
        latency_ms: Delay of each byte, in each direction.
        bytes_per_s: Bandwidth of all connections together, in each direction; 0 is unbounded.
        is_silent: Whether bytes are held back, and connections stay: a network that loses
            packets. What was held back arrives afterwards.

    Example:
        >>> with Proxy("127.0.0.1", 6379) as proxy:
        ...     proxy.latency_ms = 20
        ...     proxy.address == f"127.0.0.1:{proxy.port}"
        True

    Source:
        The toxics `latency`, `bandwidth`, `timeout` and `reset_peer` of
        https://github.com/Shopify/toxiproxy.
    """

    def __init__(
        self, target_host: str, target_port: int, *, server_ssl: ssl.SSLContext | None = None
    ) -> None:
        self.target = (target_host, target_port)
        self.latency_ms = 0.0
        self.bytes_per_s = 0.0
        self.is_silent = False
        self._is_cut = False
        self._server_ssl = server_ssl
        self._port = 0
        self._connections: set[Connection] = set()
        self._links = (Link(), Link())
        self._loop: asyncio.AbstractEventLoop
        self._stopped = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        """Port of 127.0.0.1 that it listens on, from `start` to `close`."""
        return self._port

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def connection_count(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    @property
    def is_cut(self) -> bool:
        """Whether it resets each connection, open or new."""
        return self._is_cut

    @is_cut.setter
    def is_cut(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        if is_cut:
            self.drop_connections()

    def drop_connections(self) -> None:
        """Reset all connections that are open; new ones are served."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._abort_all)

    def start(self) -> None:
        """Listen.

        Raises:
            TimeoutError: If its thread does not come up.
        """
        self._thread.start()
        if not self._listening.wait(THREAD_TIMEOUT_S):
            raise TimeoutError(f"no proxy after {THREAD_TIMEOUT_S:g} s")

    def close(self) -> None:
        """Reset all connections and give the port back; it can't be started again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(THREAD_TIMEOUT_S)

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._serve_until_stopped())

    async def _serve_until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._server_ssl)
        self._port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopped.wait()
        server.close()
        self._abort_all()
        # `asyncio.run` cancels what is left when this returns.

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection([writer])
        self._connections.add(connection)
        try:
            # A peer that is gone, or a target that does not listen, is what a proxy is used for.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if not self._is_cut:
                    await self._pass_on(connection, reader, writer)
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _pass_on(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target_reader, target_writer = await asyncio.open_connection(*self.target)
        connection.writers.append(target_writer)
        there, back = self._links
        await asyncio.gather(
            self._pump(reader, target_writer, there), self._pump(target_reader, writer, back)
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link
    ) -> None:
        """Pass on one direction until its sender ends it."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_IN_FLIGHT_MAX)
        delivery = asyncio.create_task(self._deliver(chunks, writer, link))
        try:
            while True:
                chunk = await reader.read(CHUNK_BYTES)
                await chunks.put((self._loop.time() + self.latency_ms / 1000, chunk))
                if not chunk:
                    break
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self,
        chunks: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        link: Link,
    ) -> None:
        """Write each chunk when its time has come; an empty one is the end."""
        while True:
            due_s, chunk = await chunks.get()
            await self._travel(due_s, len(chunk), link)
            if not chunk:
                # TLS has no end of one direction alone: there the connection ends with the other.
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()

    async def _travel(self, due_s: float, size_bytes: int, link: Link) -> None:
        if self.bytes_per_s:
            link.free_at_s = max(link.free_at_s, self._loop.time()) + size_bytes / self.bytes_per_s
            due_s = max(due_s, link.free_at_s)
        if (delay_s := due_s - self._loop.time()) > 0:
            await asyncio.sleep(delay_s)
        while self.is_silent:
            await asyncio.sleep(SILENCE_POLL_S)
