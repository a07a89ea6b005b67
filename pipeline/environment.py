"""What the environment gives: variables, files that hold their values, and the secrets among them.

    LIVESTEP_<NAME>=value
    LIVESTEP_<NAME>_FILE=/run/secrets/name     the content of the file is the value

The second form is that of Docker and Kubernetes: a secret that is mounted as a file stands neither
in the environment, which a child process inherits, nor in the process list.
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

#: Options of librdkafka whose own names end as if they named the file of a value.
_NAMED_SO_BY_LIBRDKAFKA = frozenset(
    KAFKA_PREFIX + "SASL_OAUTHBEARER_ASSERTION_" + name
    for name in ("FILE", "PRIVATE_KEY_FILE", "JWT_TEMPLATE_FILE")
)

#: The one option of librdkafka that has an underscore.
_UNDERSCORED = {"log.level": "log_level"}

#: Longest content of a file that is taken for a value; a chain of certificates has some thousand.
_FILE_BYTES_MAX = 1 << 20

#: Options of librdkafka whose value is nobody's business.
_SECRET_OPTION = re.compile(r"password|passphrase|secret|\.pem\b|oauthbearer\.config|private\.key")

#: What is wrong is not shown: it may be a part of the password.
_UNREADABLE_URL = (
    "--redis-url or LIVESTEP_REDIS_URL can't be read: redis[s]://[user:password@]host:port/db is "
    "needed, with '/', '?', '#' and '@' within the password as %2F, %3F, %23 and %40; "
    "LIVESTEP_REDIS_PASSWORD takes it as it is"
)


class Secret(str):
    """A text that is itself for whom it is passed to, and `'***'` in every `repr`.

    So what holds one (settings, a dictionary of options) can be logged.

    Example:
        >>> Secret("open sesame"), Secret("open sesame") == "open sesame", Secret("")
        ('***', True, '')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


@dataclass(frozen=True, kw_only=True)
class RedisCredentials:
    """Who we are to Redis, and to its Sentinels, which have users of their own; '' is nobody."""

    username: str = ""
    password: str = Secret()
    sentinel_username: str = ""
    sentinel_password: str = Secret()

    def __post_init__(self) -> None:
        if (self.username and not self.password) or (
            self.sentinel_username and not self.sentinel_password
        ):
            raise ConfigError("a user of Redis is given, and no password")


def read_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Give our variables with their values, each `..._FILE` among them replaced by its content.

    Newlines at the end of a file don't count, since most editors write one.

    Args:
        environment: Variables of a process.

    Returns:
        variables: Those that begin with `LIVESTEP_`.

    Raises:
        ConfigError: If a file can't be read or is no text, or a value is given both ways.
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
            raise ConfigError(f"{target} and {name} are both given: one of them has to go")
        variables[target] = _content(name, path)
    return variables


def _content(variable: str, path: str) -> str:
    where = f"the file that {variable} names, {path!r},"
    try:
        with Path(path).open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{where} can't be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{where} is no text in UTF-8") from None
    if len(content) > _FILE_BYTES_MAX or "\0" in text:
        raise ConfigError(f"{where} is longer than {_FILE_BYTES_MAX} bytes, or no text")
    if not text:
        raise ConfigError(f"{where} is empty")
    return text


def kafka_options(variables: Mapping[str, str]) -> dict[str, str]:
    """Take librdkafka's options out of variables: `LIVESTEP_KAFKA_LINGER_MS=5` is `linger.ms`.

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
    """Take user and password out of the URL of a Redis.

    Args:
        url: `redis[s]://[user:password@]host:port/db`, or with both as `?username=` and
            `?password=`, as redis-py takes them, too.

    Returns:
        url: Without them.
        username: Empty if there is none.
        password: Likewise.

    Raises:
        ConfigError: If it can't be read; shows nothing of it.

    Example:
        >>> split_credentials("rediss://worker:a%2Fb@example.org:6380/1")
        ('rediss://example.org:6380/1', 'worker', '***')
    """
    try:
        parts = urlsplit(url)
        # A Redis Cluster and Sentinels have several addresses.
        for address in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{address}").port  # raises if it is no number
    except ValueError:
        raise ConfigError(_UNREADABLE_URL) from None
    # What stands in the wrong place there is the rest of a password with '/', '?' or '#' in it.
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
