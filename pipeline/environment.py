"""Variables of the environment, files that hold their values, and secrets among them.

    LIVESTEP_<NAME>=value
    LIVESTEP_<NAME>_FILE=/run/secrets/name     the content of the file is the value

Docker and Kubernetes use the second form: a secret in a mounted file is neither in the environment,
which child processes inherit, nor in the process list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from livestep.pipeline.errors import ConfigError

ENVIRONMENT_PREFIX = "LIVESTEP_"

#: Prefix of librdkafka options that pass through under their own name.
KAFKA_PREFIX = "LIVESTEP_KAFKA_"

FILE_SUFFIX = "_FILE"

#: Options of librdkafka whose own names end in `_FILE`.
_NAMED_SO_BY_LIBRDKAFKA = frozenset(
    KAFKA_PREFIX + "SASL_OAUTHBEARER_ASSERTION_" + name
    for name in ("FILE", "PRIVATE_KEY_FILE", "JWT_TEMPLATE_FILE")
)

#: The only option of librdkafka with an underscore.
_UNDERSCORED = {"log.level": "log_level"}

#: Longest file that is read as a value; a chain of certificates has some thousand bytes.
_FILE_BYTES_MAX = 1 << 20

#: Options of librdkafka whose values are secret.
_SECRET_OPTION = re.compile(r"password|passphrase|secret|\.pem\b|oauthbearer\.config|private\.key")

#: The invalid part is not shown: it may belong to the password.
_UNREADABLE_URL = (
    "--redis-url or LIVESTEP_REDIS_URL is invalid: write redis[s]://[user:password@]host:port/db, "
    "with '/', '?', '#' and '@' in the password written as %2F, %3F, %23 and %40; "
    "LIVESTEP_REDIS_PASSWORD needs no escapes"
)


class Secret(str):
    """A string whose `repr` is `'***'`, so that settings and options that hold one can be logged.

    Example:
        >>> Secret("open sesame"), Secret("open sesame") == "open sesame", Secret("")
        ('***', True, '')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


@dataclass(frozen=True, kw_only=True)
class RedisCredentials:
    """Credentials for Redis and for its Sentinels, which have their own users; '' means none."""

    username: str = ""
    password: str = Secret()
    sentinel_username: str = ""
    sentinel_password: str = Secret()

    def __post_init__(self) -> None:
        if (self.username and not self.password) or (
            self.sentinel_username and not self.sentinel_password
        ):
            raise ConfigError("a user for Redis is set, but no password")


def read_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return our variables with their values; for each `..._FILE`, the file's content.

    Newlines at the end of a file are dropped, since most editors write one.

    Args:
        environment: A process's variables.

    Returns:
        variables: Those whose names start with `LIVESTEP_`.

    Raises:
        ConfigError: If a file can't be read or is not text, or a value is set both ways.
    """
    variables = {
        name: value for name, value in environment.items() if name.startswith(ENVIRONMENT_PREFIX)
    }
    for name in sorted(variables):
        if not name.endswith(FILE_SUFFIX) or name in _NAMED_SO_BY_LIBRDKAFKA:
            continue
        path, target = variables.pop(name), name.removesuffix(FILE_SUFFIX)
        if not path:
            continue
        if variables.get(target):
            raise ConfigError(f"{target} and {name} are both set: remove one of them")
        variables[target] = _content(name, path)
    return variables


def _content(variable: str, path: str) -> str:
    where = f"the file {path!r} of {variable}"
    try:
        with Path(path).open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{where} can't be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{where} is not text in UTF-8") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{where} is longer than {_FILE_BYTES_MAX} bytes")
    if "\0" in text:
        raise ConfigError(f"{where} is not text: it contains a null byte")
    if not text:
        raise ConfigError(f"{where} is empty")
    return text


def kafka_options(variables: Mapping[str, str]) -> dict[str, str]:
    """Return librdkafka's options among variables: `LIVESTEP_KAFKA_LINGER_MS=5` is `linger.ms`.

    Example:
        >>> kafka_options({"LIVESTEP_KAFKA_LINGER_MS": "5", "LIVESTEP_KAFKA_SASL_PASSWORD": "s"})
        {'linger.ms': '5', 'sasl.password': '***'}
    """
    options = {
        name.removeprefix(KAFKA_PREFIX).lower().replace("_", "."): value
        for name, value in variables.items()
        if name.startswith(KAFKA_PREFIX)
    }
    return {
        _UNDERSCORED.get(name, name): Secret(value) if _SECRET_OPTION.search(name) else value
        for name, value in options.items()
    }


def split_credentials(url: str) -> tuple[str, str, Secret]:
    """Separate user and password from a Redis URL.

    Args:
        url: `redis[s]://[user:password@]host:port/db`, or with `?username=` and `?password=`, which
            redis-py accepts, too.

    Returns:
        url: Without them.
        username: Empty if there is none.
        password: Likewise.

    Raises:
        ConfigError: If it is invalid; the message shows no part of it.

    Example:
        >>> split_credentials("rediss://worker:a%2Fb@example.org:6380/1")
        ('rediss://example.org:6380/1', 'worker', '***')
    """
    try:
        parts = urlsplit(url)
        # The URL of a Redis Cluster or of Sentinels has several addresses.
        for address in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{address}").port  # raises if it is not a number
    except ValueError:
        raise ConfigError(_UNREADABLE_URL) from None
    # An '@' or a fragment here is the rest of a password with '/', '?' or '#' in it.
    if "@" in parts.path + parts.query or parts.fragment:
        raise ConfigError(_UNREADABLE_URL)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    in_query = {name: query.pop(name, "") for name in ("username", "password")}
    username = unquote(parts.username or "") or in_query["username"]
    password = unquote(parts.password or "") or in_query["password"]
    if not (username or password or any(in_query.values())):
        return url, "", Secret()
    address = parts.netloc.rpartition("@")[2]
    bare = urlunsplit((parts.scheme, address, parts.path, urlencode(query), ""))
    return bare, username, Secret(password)
