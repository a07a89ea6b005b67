"""Run a command that the kernel kills as soon as the process that asked for it is gone.

    python deploy/local/tether.py PARENT_PID COMMAND [ARGUMENT ...]

A parent killed with SIGKILL can clean up nothing, so the promise that no process stays behind must
be the kernel's: PR_SET_PDEATHSIG. It outlives `exec`, so this small program sets it on itself and
then becomes the command, under the same process id. (As a `preexec_fn` the same call would run
between fork and exec of a process with threads, where Python may deadlock.)

The signal is sent when the *thread* that started the child ends: `child_process` starts all
children from one thread that lives as long as the interpreter.

Elsewhere than on Linux the command just runs; it is then stopped by a parent that ends in an
orderly way.
"""

import os
import signal
import sys

#: From <linux/prctl.h>; see prctl(2).
PR_SET_PDEATHSIG = 1


def tie_to_parent(parent_pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Args:
        parent_pid: Process id of the parent that asked. If it is gone already, this process exits
            at once.
        signal_number: Which signal.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number)
        # The parent may have ended before the call above: then nobody will send the signal.
        if os.getppid() != parent_pid:
            sys.exit(1)


if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")
