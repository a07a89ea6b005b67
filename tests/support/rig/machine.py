"""The machine that numbers belong to, and the memory of a process on it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from livestep.deploy.local.jars import kafka_version
from livestep.deploy.local.redis_server import redis_executable, redis_version


class Machine(msgspec.Struct, kw_only=True):
    """What numbers were measured on.

    Attributes:
        load: Processes that wanted a processor in the minute before: 0 is a quiet machine.
        redis: Version of its server.
    """

    processor: str
    cores: int
    memory_gb: int
    system: str
    python: str
    torch: str
    kafka: str
    java: str
    load: float
    redis: str = ""


def describe_machine() -> Machine:
    """Describe this machine."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        kafka=kafka_version(),
        load=round(os.getloadavg()[0], 1),
        redis=".".join(map(str, redis_version(redis_executable()))),
        java=(re.findall(r'"(.+?)"', java) or ["none"])[0],
    )


def _processor() -> str:
    """Name the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return names[0] if names else platform.machine()


@dataclass(frozen=True)
class ProcessSample:
    """A process at one moment.

    Attributes:
        rss_kb: Resident memory, KB of 1024 bytes.
        peak_rss_kb: The most so far.
        threads: Threads.
        files: Open file descriptors.
    """

    rss_kb: int
    peak_rss_kb: int
    threads: int
    files: int

    @property
    def rss_mb(self) -> float:
        """Resident memory in 10^6 bytes."""
        return self.rss_kb * 1024 / 1e6

    @property
    def peak_rss_mb(self) -> float:
        """The most so far, in 10^6 bytes."""
        return self.peak_rss_kb * 1024 / 1e6


def sample_process(pid: int) -> ProcessSample:
    """Look at a process.

    Raises:
        OSError: If it has ended, or the system has no /proc.
    """
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    numbers = {name: int(number) for name, number in _NUMBERS.findall(text)}
    if "VmRSS" not in numbers:
        raise ProcessLookupError(f"process {pid} has ended")
    return ProcessSample(
        numbers["VmRSS"], numbers["VmHWM"], numbers["Threads"], len(os.listdir(f"/proc/{pid}/fd"))
    )


_NUMBERS = re.compile(r"^(\w+):\s+(\d+)", re.MULTILINE)
