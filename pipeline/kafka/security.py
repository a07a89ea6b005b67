"""Security options of Kafka, under librdkafka's names, for kafka-python as well.

Worker and clients take the same variables (`LIVESTEP_KAFKA_SASL_USERNAME`).  The worker's library
is librdkafka, whose names they are; here, and nowhere else, they are translated for kafka-python.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from livestep.pipeline.environment import KAFKA_PREFIX
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.guides import guide

#: Where to look after a refusal.
RIGHTS = (
    f"({guide('deploy/security/README.md')} lists the rights that workers, publishers and readers "
    "need)"
)

#: Beginnings of the options that are about security; clients leave all others to the worker.
_SECURITY = ("security.", "sasl.", "ssl.", "enable.ssl.", "https.")

#: librdkafka's name: kafka-python's.
_TRANSLATIONS = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.endpoint.identification.algorithm": "ssl_check_hostname",
}

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

#: What kafka-python does with a user and a password alone.
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

#: Those of kafka-python that `with_tls_context` takes the place of.
_TLS_OPTIONS = frozenset(
    {
        "ssl_context",
        "ssl_check_hostname",
        "ssl_cafile",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_crlfile",
        "ssl_ciphers",
    }
)

#: Where librdkafka is told to look for the system's certificates by itself.
_PROBE = "probe"


def kafka_python_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Translate the options that are about security.

    Args:
        options: librdkafka's, by name.

    Returns:
        options: kafka-python's, by name; none if nothing is about security.

    Raises:
        ConfigError: If one has no counterpart, or a value can't be right; names its variable.

    Example:
        >>> kafka_python_options({"security.protocol": "ssl", "linger.ms": "5"})
        {'security_protocol': 'SSL'}
    """
    translated: dict[str, Any] = {}
    for name, value in options.items():
        if not name.startswith(_SECURITY):
            continue
        if name not in _TRANSLATIONS:
            known = ", ".join(map(_variable, _TRANSLATIONS))
            raise ConfigError(
                f"{_variable(name)} is for workers only: publishers and readers know {known}"
            )
        translated[_TRANSLATIONS[name]] = _value(name, value)
    if translated.get("security_protocol", "").startswith("SASL"):
        for name in ("sasl.mechanism", "sasl.username", "sasl.password"):
            if not translated.get(_TRANSLATIONS[name]):
                protocol = translated["security_protocol"]
                raise ConfigError(f"security protocol {protocol} needs {_variable(name)}")
    return translated


def _variable(name: str) -> str:
    return KAFKA_PREFIX + name.upper().replace(".", "_")


def _value(name: str, value: str) -> Any:
    if name == "ssl.endpoint.identification.algorithm":
        return _one_of(name, value.lower(), ("https", "none")) == "https"
    if name == "security.protocol":
        return _one_of(name, value.upper(), _PROTOCOLS)
    if name in ("sasl.mechanism", "sasl.mechanisms"):
        return _one_of(name, value.upper(), _MECHANISMS)
    # A plain text: what was kept from being shown ends here.
    return str(value)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigError(f"{_variable(name)}={value} is none of {', '.join(choices)}")
    return value


def with_tls_context(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the names of certificates and keys by what they hold, if the protocol is TLS.

    kafka-python would read them at each connection, in a thread whose errors nobody sees.

    Args:
        options: kafka-python's.

    Returns:
        options: With `ssl_context`, if TLS is wanted and there was none.

    Raises:
        ConfigError: If a file can't be read, or its password is wrong.
    """
    bare = {name: value for name, value in options.items() if name not in _TLS_OPTIONS}
    if options.get("security_protocol", "PLAINTEXT") not in ("SSL", "SASL_SSL"):
        return bare
    context = options.get("ssl_context") or _tls_context(options)
    return {**bare, "ssl_context": context}


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options.get("ssl_check_hostname", True)
    authorities, certificate = options.get("ssl_cafile"), options.get("ssl_certfile")
    reading: Any = authorities
    try:
        if authorities and authorities != _PROBE:
            is_folder = Path(authorities).is_dir()
            context.load_verify_locations(
                capath=authorities if is_folder else None,
                cafile=None if is_folder else authorities,
            )
        else:
            context.load_default_certs()
        if certificate:
            key = options.get("ssl_keyfile")
            reading = f"{certificate} and {key}" if key else certificate
            # Without any password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(certificate, key, options.get("ssl_password") or "")
        if revoked := options.get("ssl_crlfile"):
            reading = revoked
            context.load_verify_locations(cafile=revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if ciphers := options.get("ssl_ciphers"):
            reading = ciphers
            context.set_ciphers(ciphers)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"TLS: {reading} can't be used ({problem}): certificates and keys are PEM files, and "
            "an encrypted key needs its password"
        ) from None
    return context


class _NoCredentials(logging.Filter):
    """Keeps requests that carry a password, and bytes as they are sent, out of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(
            isinstance(argument, bytes) or type(argument).__name__.startswith("Sasl")
            for argument in arguments
        )


def keep_credentials_out_of_logs() -> None:
    """Leave out of kafka-python's DEBUG log what shows the password of SASL PLAIN."""
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, _NoCredentials) for one in logger.filters):
            logger.addFilter(_NoCredentials())
