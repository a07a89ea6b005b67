"""Free ports of 127.0.0.1 that nobody else takes."""

from __future__ import annotations

import socket
import sys


class ReservedPort:
    """A free port of 127.0.0.1 that stays ours until `release`, service up or down.

    The kernel keeps it for us: a socket is bound to it and never listens. Linux lets a second
    socket listen on the port if both have SO_REUSEADDR, as Java's and Redis' have; a search for a
    free port passes over it, and so does the choice of a client's own port. (Else a client that
    tries to reconnect to a stopped service would sooner or later be given the very port it calls,
    and talk to itself.)

    Elsewhere than on Linux the port is found and let go.

    Args:
        number: Which; 0 for any that is free.

    Raises:
        OSError: If somebody has that one.

    Example:
        >>> port = ReservedPort()
        >>> 1024 < port.number < 65536
        True
        >>> port.release()

    Source:
        socket(7) and ip(7), SO_REUSEADDR.
    """

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket()
        try:
            self._socket.bind(("127.0.0.1", number))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]
        if sys.platform == "linux":
            # Set after bind, so that the search itself took a port that no one had, sharing or not.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            self.release()

    def release(self) -> None:
        """Let others have the port."""
        self._socket.close()
