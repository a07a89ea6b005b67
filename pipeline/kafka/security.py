"""Kafka's security options, translated from librdkafka's names to kafka-python's.

Workers and clients accept the same variables, such as `LIVESTEP_KAFKA_SASL_USERNAME`.  They have
the names of librdkafka, the worker's library; only this module translates them for kafka-python.
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

#: Hint after a missing permission.
RIGHTS = (
    f"({guide('deploy/security/README.md')} lists the permissions that workers, publishers and "
    "readers need)"
)

#: Prefixes of security options; clients ignore all other options.
_SECURITY = ("security.", "sasl.", "ssl.", "enable.ssl.", "https.")

#: librdkafka's names: kafka-python's names.
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

#: Other options of kafka-python's producer, with librdkafka's names.
_PRODUCER_OPTIONS = {
    "client_id": "client.id",
    "compression_type": "compression.type",
    "linger_ms": "linger.ms",
    "max_request_size": "message.max.bytes",
}

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

#: Mechanisms for which kafka-python needs only a user and a password.
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

#: Options of kafka-python that `with_tls_context` replaces.
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

#: Value of ssl.ca.location that makes librdkafka search for the system's certificates.
_PROBE = "probe"


def kafka_python_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Translate the security options.

    Args:
        options: librdkafka's options, by name.

    Returns:
        options: kafka-python's security options, by name.

    Raises:
        ConfigError: If an option has no counterpart, or its value is invalid; names the variable.

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
                f"{_variable(name)} is for workers only; publishers and readers accept {known}"
            )
        translated[_TRANSLATIONS[name]] = _value(name, value)
    if translated.get("security_protocol", "").startswith("SASL"):
        for name in ("sasl.mechanism", "sasl.username", "sasl.password"):
            if not translated.get(_TRANSLATIONS[name]):
                protocol = translated["security_protocol"]
                raise ConfigError(f"security protocol {protocol} needs {_variable(name)}")
    return translated


def librdkafka_options(
    variables: Mapping[str, str], client_options: Mapping[str, Any]
) -> dict[str, Any]:
    """Translate options of a kafka-python client to librdkafka's.

    Args:
        variables: librdkafka's options from the environment; only the security options are used,
            and none if the client options have a security protocol.
        client_options: kafka-python's options, by name; they override.

    Returns:
        options: librdkafka's options, by name.

    Raises:
        ConfigError: If an option has no counterpart.

    Example:
        >>> librdkafka_options({}, {"security_protocol": "SSL", "ssl_check_hostname": False})
        {'security.protocol': 'SSL', 'ssl.endpoint.identification.algorithm': 'none'}
    """
    options: dict[str, Any] = {}
    if "security_protocol" not in client_options:
        options = {name: one for name, one in variables.items() if name.startswith(_SECURITY)}
    translations = {theirs: ours for ours, theirs in reversed(_TRANSLATIONS.items())}
    names = translations | _PRODUCER_OPTIONS
    for name, value in client_options.items():
        if name not in names:
            raise ConfigError(
                f"option {name!r} is not available for bulk publishing, which accepts "
                f"{', '.join(sorted(names))}"
            )
        if name == "ssl_check_hostname":
            value = "https" if value else "none"  # noqa: PLW2901
        options[names[name]] = value
    return options


def _variable(name: str) -> str:
    return KAFKA_PREFIX + name.upper().replace(".", "_")


def _value(name: str, value: str) -> Any:
    if name == "ssl.endpoint.identification.algorithm":
        return _one_of(name, value.lower(), ("https", "none")) == "https"
    if name == "security.protocol":
        return _one_of(name, value.upper(), _PROTOCOLS)
    if name in ("sasl.mechanism", "sasl.mechanisms"):
        return _one_of(name, value.upper(), _MECHANISMS)
    # Convert a `Secret` to a plain string for kafka-python.
    return str(value)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigError(f"{_variable(name)}={value} must be one of {', '.join(choices)}")
    return value


def with_tls_context(options: Mapping[str, Any]) -> dict[str, Any]:
    """Load certificates and keys into an `ssl_context`, if the protocol is TLS.

    kafka-python would load them at each connection, in a thread whose errors are not raised.

    Args:
        options: kafka-python's options.

    Returns:
        options: With `ssl_context` instead of the file names, if the protocol is TLS.

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
            # With an empty password, OpenSSL doesn't prompt for one on the terminal.
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
            f"TLS: {reading} can't be used ({problem}); certificates and keys must be PEM files, "
            "and an encrypted key needs its password"
        ) from None
    return context


class _NoCredentials(logging.Filter):
    """Drops log records that contain SASL requests or raw bytes, which may show a password."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(
            isinstance(argument, bytes) or type(argument).__name__.startswith("Sasl")
            for argument in arguments
        )


def keep_credentials_out_of_logs() -> None:
    """Keep the password of SASL PLAIN out of kafka-python's DEBUG log."""
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, _NoCredentials) for one in logger.filters):
            logger.addFilter(_NoCredentials())
