"""Secrets: from the environment or a file, and from there into no repr, error or log."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.protocol.sasl import SaslAuthenticateRequest

from livestep.pipeline.environment import Secret, kafka_options, read_variables, split_credentials
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.kafka.security import (
    kafka_python_options,
    keep_credentials_out_of_logs,
    with_tls_context,
)
from livestep.pipeline.settings import Settings

NEEDED = {"model": "m", "input_topic": "in", "output_topic": "out"}
MARKER = "m4rk3r-s3cr3t"


def test_a_secret_is_itself_and_shows_nothing():
    secret = Secret(MARKER)
    assert secret == MARKER and f"{secret}" == MARKER
    for shown in (repr(secret), repr({"a": [secret]}), f"{secret!r}"):
        assert MARKER not in shown
    for copied in (copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):
        assert copied == MARKER and MARKER not in repr(copied)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{MARKER}@127.0.0.1:6379/0",
        f"rediss://:{MARKER}@127.0.0.1:6379/0",
        f"redis://127.0.0.1:6379/0?password={MARKER}",
        f"unix:///run/redis.sock?db=1&password={MARKER}",
    ],
)
def test_settings_show_no_password_whichever_way_they_are_shown(url):
    settings = Settings.from_environment(
        {"LIVESTEP_KAFKA_SASL_PASSWORD": MARKER}, redis_url=url, **NEEDED
    )
    assert settings.redis_password == MARKER
    assert settings.kafka_options["sasl.password"] == MARKER
    shown = [repr(settings), str(dataclasses.asdict(settings)), settings.redis_url]
    shown.append(logging.LogRecord("n", 0, "p", 0, "%s", (settings,), None).getMessage())
    assert MARKER not in " ".join(shown)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://127.0.0.1:6379/0", ("redis://127.0.0.1:6379/0", "", "")),
        ("redis://u:p@h:1/2", ("redis://h:1/2", "u", "p")),
        ("redis://u:a%2Fb%40c@h", ("redis://h", "u", "a/b@c")),
        ("redis://:p@h/2?protocol=3", ("redis://h/2?protocol=3", "", "p")),
        ("redis://u@h", ("redis://h", "u", "")),
        ("redis://[::1]:7/0?username=u&password=p", ("redis://[::1]:7/0", "u", "p")),
    ],
)
def test_user_and_password_are_taken_out_of_a_url(url, parts):
    assert split_credentials(url) == parts


@pytest.mark.parametrize("rest", ["/x", "#x", "?x", "/x:1", "12/3", "1?2", "1#2"])
def test_a_url_that_cant_be_read_is_not_shown(rest):
    """Each is a password with a character that ends it: some of it would pass for host or port."""
    with pytest.raises(ConfigError, match="LIVESTEP_REDIS_PASSWORD") as caught:
        Settings(**NEEDED, redis_url=f"redis://user:{MARKER}{rest}@127.0.0.1:6379/0")
    assert MARKER not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        Settings(**NEEDED, redis_url=f"redis://user:12{rest}{MARKER}@127.0.0.1:6379/0")
    assert MARKER not in str(caught.value)


def test_a_password_has_one_source():
    both = {"redis_url": f"redis://:{MARKER}@h:1/0", "redis_password": "other"}
    with pytest.raises(ConfigError, match="twice") as caught:
        Settings(**NEEDED, **both)
    assert MARKER not in str(caught.value)
    one = Settings(**NEEDED, redis_url="redis://h:1/0", redis_username="u", redis_password=MARKER)
    assert (one.redis_username, one.redis_password) == ("u", MARKER)
    with pytest.raises(ConfigError, match="--redis-password is not a string"):
        Settings(**NEEDED, redis_password=4711)


def test_a_file_holds_the_value_of_a_variable(tmp_path):
    # Given files as Docker and Kubernetes mount them
    password, url = tmp_path / "password", tmp_path / "url"
    password.write_text(MARKER + "\n")
    url.write_text("rediss://example.org:1/0")
    # When they are named
    environment = {
        "LIVESTEP_REDIS_PASSWORD_FILE": str(password),
        "LIVESTEP_REDIS_URL_FILE": str(url),
        "LIVESTEP_KAFKA_SASL_PASSWORD_FILE": str(password),
        "LIVESTEP_GROUP_FILE": "",
        "OTHER_FILE": str(password),
    }
    settings = Settings.from_environment(environment, **NEEDED)
    # Then their content counts
    assert settings.redis_password == MARKER
    assert settings.redis_url == "rediss://example.org:1/0"
    assert settings.kafka_options == {"sasl.password": MARKER}
    assert settings.group == "livestep.out"


def test_a_value_and_its_file_are_not_both_given(tmp_path):
    (tmp_path / "f").write_text(MARKER)
    variables = {
        "LIVESTEP_REDIS_PASSWORD": "x",
        "LIVESTEP_REDIS_PASSWORD_FILE": str(tmp_path / "f"),
    }
    with pytest.raises(ConfigError, match="LIVESTEP_REDIS_PASSWORD and .*_FILE are both set"):
        read_variables(variables)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"a\0b", "not text: it contains a null byte"),
        (b"x" * (1 << 20) + b"y", "longer than"),
    ],
)
def test_an_unusable_secret_file_is_named_by_its_variable(tmp_path, content, problem):
    path = tmp_path / "f"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_variables({"LIVESTEP_REDIS_PASSWORD_FILE": str(path)})
    assert "LIVESTEP_REDIS_PASSWORD_FILE" in str(caught.value)


def test_an_option_of_librdkafka_that_ends_in_file_keeps_its_name():
    name = "LIVESTEP_KAFKA_SASL_OAUTHBEARER_ASSERTION_FILE"
    assert kafka_options(read_variables({name: "/a"})) == {"sasl.oauthbearer.assertion.file": "/a"}


def test_the_option_with_an_underscore_keeps_it():
    assert kafka_options({"LIVESTEP_KAFKA_LOG_LEVEL": "7"}) == {"log_level": "7"}


@pytest.mark.parametrize(
    "name", ["SASL_PASSWORD", "SSL_KEY_PASSWORD", "SSL_KEY_PEM", "SASL_OAUTHBEARER_CLIENT_SECRET"]
)
def test_options_that_are_secrets_are_not_shown(name):
    assert MARKER not in repr(kafka_options({f"LIVESTEP_KAFKA_{name}": MARKER}))


def test_security_options_are_translated_for_the_clients():
    options = kafka_options(
        {
            "LIVESTEP_KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
            "LIVESTEP_KAFKA_SASL_MECHANISM": "scram-sha-512",
            "LIVESTEP_KAFKA_SASL_USERNAME": "u",
            "LIVESTEP_KAFKA_SASL_PASSWORD": MARKER,
            "LIVESTEP_KAFKA_SSL_CA_LOCATION": "/ca.pem",
            "LIVESTEP_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM": "none",
            "LIVESTEP_KAFKA_COMPRESSION_TYPE": "lz4",
        }
    )
    assert kafka_python_options(options) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": MARKER,
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ssl.keystore.location": "/k"}, "LIVESTEP_KAFKA_SSL_KEYSTORE_LOCATION is for workers"),
        ({"security.protocol": "tls"}, "LIVESTEP_KAFKA_SECURITY_PROTOCOL=TLS must be one of"),
        ({"sasl.mechanism": "GSSAPI"}, "LIVESTEP_KAFKA_SASL_MECHANISM=GSSAPI must be one of"),
        ({"security.protocol": "SASL_SSL"}, "needs LIVESTEP_KAFKA_SASL_MECHANISM"),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u"},
            "needs LIVESTEP_KAFKA_SASL_PASSWORD",
        ),
    ],
)
def test_an_unsupported_client_option_is_reported_by_its_variable(options, text):
    with pytest.raises(ConfigError, match=text):
        kafka_python_options(options)


def test_certificates_are_read_before_connecting(tmp_path):
    # Given an authority, and a certificate whose key is encrypted
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    ca, certificate, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    leaf.cert_chain_pems[0].write_to_path(certificate)
    plain = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    encrypted = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(MARKER.encode()),
    )
    (tmp_path / "key.pem").write_bytes(encrypted)
    files = {"ssl_cafile": ca, "ssl_certfile": certificate, "ssl_keyfile": key}

    # When it's opened by its password, then there is a context
    options = with_tls_context({"security_protocol": "SSL", "ssl_password": MARKER, **files})
    assert options["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname
    assert set(options) == {"security_protocol", "ssl_context"}

    # And else an error that names the file, without a question on the terminal
    for changes in ({}, {"ssl_password": MARKER + "x"}, {"ssl_keyfile": ca}):
        with pytest.raises(ConfigError, match="can't be used") as caught:
            with_tls_context({"security_protocol": "SSL", **files, **changes})
        assert MARKER not in str(caught.value)
    with pytest.raises(ConfigError, match="missing.pem"):
        with_tls_context({"security_protocol": "SSL", "ssl_cafile": str(tmp_path / "missing.pem")})
    # And what kafka-python doesn't know is left for it to refuse
    assert with_tls_context({"ssl_cafile": "a", "ssl_cafil": "b"}) == {"ssl_cafil": "b"}


def test_kafka_pythons_debug_log_has_no_password_of_sasl_plain(caplog):
    # Given the request that carries it, as kafka-python logs it
    keep_credentials_out_of_logs()
    keep_credentials_out_of_logs()
    config = {"sasl_plain_username": "u", "sasl_plain_password": MARKER}
    token = SaslMechanismPlain(**config).auth_bytes()
    request = SaslAuthenticateRequest(token)
    assert MARKER in str(request)
    caplog.set_level(logging.DEBUG)
    # When it's logged
    logging.getLogger("kafka.net.connection").debug("%s Request %d: %s", "conn", 3, request)
    logging.getLogger("kafka.protocol.parser").debug("%s Sending request %d %s", "c", 3, request)
    logging.getLogger("kafka.protocol.parser").debug("%s Send: %r", "conn", token)
    logging.getLogger("kafka.net.connection").debug("%s: Connected", "conn")
    # Then only what has none is there
    assert MARKER not in caplog.text
    assert "Connected" in caplog.text
