"""Free ports of 127.0.0.1, reserved so that no other program takes them."""

from __future__ import annotations

import socket
import sys


class ReservedPort:
    """A free port of 127.0.0.1, reserved until `release`, whether the service runs or not.

    A socket is bound to the port and never listens, so the kernel keeps it. Linux lets a second
    socket listen on the port if both have SO_REUSEADDR, which Java and Redis set; a search for a
    free port skips it, and so does the choice of a client's own port. (Otherwise a client that
    keeps reconnecting to a stopped service may get the very port that it calls, and talk to
    itself.)

    On other systems the port is found and released at once.

    Args:
        number: The port; 0 for any free one.

    Raises:
        OSError: If the port is in use.

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
            # Set after bind, so that the search found a port that no other socket uses.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            self.release()

    def release(self) -> None:
        """Release the port."""
        self._socket.close()
