"""Runs a command that the kernel kills as soon as the calling process has ended.

    python deploy/local/tether.py PARENT_PID COMMAND [ARGUMENT ...]

A parent killed with SIGKILL can't clean up, so only the kernel can guarantee that no process
remains: PR_SET_PDEATHSIG. It survives `exec`, so this small program sets it on itself and then
becomes the command, with the same process id. (As a `preexec_fn`, the call would run between fork
and exec of a process with threads, where Python may deadlock.)

The signal is sent when the *thread* that started the child ends: `child_process` starts all
children from one thread that lives as long as the interpreter.

On other systems the command just runs; a parent that exits cleanly stops it.
"""

import os
import signal
import sys

#: From <linux/prctl.h>; see prctl(2).
PR_SET_PDEATHSIG = 1


def tie_to_parent(parent_pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Args:
        parent_pid: Process id of the parent. If it has already ended, this process exits at once.
        signal_number: The signal.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number)
        # If the parent ended before the call above, the signal never comes.
        if os.getppid() != parent_pid:
            sys.exit(1)


if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")
