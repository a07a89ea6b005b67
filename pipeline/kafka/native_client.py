"""The way from a client of confluent-kafka to librdkafka, for the native loops."""

from __future__ import annotations

import re
import sysconfig
from functools import cache
from typing import Any

import confluent_kafka
from confluent_kafka import cimpl

from livestep.pipeline.native import native

#: Its clients begin with the pointer to librdkafka's; checked for these versions.
_MAJOR_VERSION = "2"

#: What librdkafka calls a client: its client.id, its kind, and a number.
_NAME = re.compile(r".*#(consumer|producer)-\d+", re.DOTALL)


@cache
def _is_usable() -> bool:
    is_known = confluent_kafka.version()[0].split(".")[0] == _MAJOR_VERSION
    if native is None or not is_known or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    native.open_librdkafka(cimpl.__file__)
    return True


def native_handle(client: Any) -> int | None:
    """Return the address of librdkafka's client, or None if the Python loops are to be used.

    Args:
        client: A consumer or producer; it must outlive every use of the address.

    Raises:
        RuntimeError: If the address is not of such a client: a defect.
    """
    # Its memory is read: only of objects that are what is expected.
    is_known = isinstance(client, cimpl.Consumer | cimpl.Producer)
    if not is_known or not _is_usable() or native is None:
        return None
    handle, name = native.client_handle(client)
    if _NAME.fullmatch(name) is None:
        raise RuntimeError(f"{name!r} is not the name of a client of librdkafka")
    return int(handle)
