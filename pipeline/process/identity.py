"""The name of a worker: the same after a restart, so that a restart ends its own transaction."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys

#: Workers of one group on one host.
WORKERS_MAX = 4_096


class WorkerId:
    """A worker's name, held as long as the process lives.

    The default is the host and the lowest number that no other worker of the group has on it.  The
    number is held by an abstract socket, which leaves no file and goes with the process, however it
    ends; where the kernel has none (they are Linux only), the process id is used instead, and a
    restart waits for the time-out of what its predecessor left open.

    Args:
        group: Consumer group.
        given: `Settings.worker_id`.
    """

    def __init__(self, group: str, given: str = "") -> None:
        self._socket: socket.socket | None = None
        self.name = given or f"{socket.gethostname()}-{self._number(group)}"

    def close(self) -> None:
        """Release the number."""
        if self._socket is not None:
            self._socket.close()

    def _number(self, group: str) -> int:
        if sys.platform != "linux":
            return os.getpid()
        # A socket's name has 107 bytes at most, a group's may be longer.
        name = hashlib.sha256(group.encode()).hexdigest()[:32]
        for number in range(WORKERS_MAX):
            held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                held.bind(f"\0livestep/{name}/{number}")
            except OSError as error:
                held.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            self._socket = held
            return number
        raise RuntimeError(f"more than {WORKERS_MAX} workers of group {group} on this host")
