"""A Kafka broker with TLS, SASL/SCRAM and access control, and certificates made for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives import serialization

from livestep.deploy.local.jars import kafka_jars
from livestep.deploy.local.kafka_broker import KafkaBroker
from tests.support.helpers import wait_until

#: What operators read, and what the tests set.
RIGHTS_FILE = Path(__file__).parents[2] / "deploy" / "security" / "README.md"

MECHANISM = "SCRAM-SHA-512"

#: With certificates and users to read on a busy machine.
START_TIMEOUT_S = 180.0

#: May do everything, and is what the broker calls itself.
ADMIN = "admin"

USERS = ("worker", "publisher", "reader", "auditor", "operator", "nobody")

_ROW = re.compile(r"\| (\w+) \| `(\w+)` \| (topic|group|transactional-id) `([^`]+)` \|")

_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


@dataclass(frozen=True, slots=True)
class Right:
    """One row of the lists in `RIGHTS_FILE`: who may do what to which."""

    user: str
    operation: str
    kind: str
    name: str

    def binding(self, names: Mapping[str, str]) -> AclBinding:
        """Fill the names in; a `*` at the end stands for every end."""
        name = self.name.format(**names)
        pattern = (
            ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL
        )
        return AclBinding(
            _KINDS[self.kind],
            name.removesuffix("*"),
            pattern,
            f"User:{self.user}",
            "*",
            AclOperation[self.operation],
            AclPermissionType.ALLOW,
        )


def listed_rights() -> list[Right]:
    """Read the lists that operators read."""
    return [Right(*row) for row in _ROW.findall(RIGHTS_FILE.read_text(encoding="utf-8"))]


def password_of(user: str) -> str:
    """Return a user's password."""
    return f"marker-of-{user}-7c1f"


class SecureKafka:
    """The broker, and what its clients need.

    Args:
        folder: An existing folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority, other = trustme.CA(), trustme.CA()
        self.authority_file, self.other_authority_file = folder / "ca.pem", folder / "other-ca.pem"
        authority.cert_pem.write_to_path(str(self.authority_file))
        other.cert_pem.write_to_path(str(self.other_authority_file))
        _write_certificate(authority.issue_cert("127.0.0.1"), folder / "server.pem")
        (folder / "kafka").mkdir()
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        self.broker = KafkaBroker(
            kafka_jars(),
            folder / "kafka",
            {
                "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:PLAINTEXT",
                "sasl.enabled.mechanisms": MECHANISM,
                "sasl.mechanism.inter.broker.protocol": MECHANISM,
                f"listener.name.client.{MECHANISM.lower()}.sasl.jaas.config": (
                    f'{login} username="{ADMIN}" password="{password_of(ADMIN)}";'
                ),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(folder / "server.pem"),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.authority_file),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Nameless is who comes by the controller's own listener: the broker itself.
                "super.users": f"User:{ADMIN};User:ANONYMOUS",
            },
            client_options=self.options(ADMIN),
            format_arguments=[
                argument
                for user in (ADMIN, *USERS)
                for argument in (
                    "--add-scram",
                    f"{MECHANISM}=[name={user},password={password_of(user)}]",
                )
            ],
        )
        self.broker.start_timeout_s = START_TIMEOUT_S

    def options(self, user: str) -> dict[str, str]:
        """Return librdkafka's options for a user."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": user,
            "sasl.password": password_of(user),
            "ssl.ca.location": str(self.authority_file),
        }

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        """Return the variables for a user; `changes` are options with `_` for their dots."""
        options = {name.replace(".", "_"): value for name, value in self.options(user).items()}
        variables = {
            f"LIVESTEP_KAFKA_{name.upper()}": value
            for name, value in {**options, **changes}.items()
        }
        return {**variables, "LIVESTEP_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers}

    @contextlib.contextmanager
    def administration(self) -> Iterator[AdminClient]:
        """Return a client that may do everything."""
        yield AdminClient(
            {**self.options(ADMIN), "bootstrap.servers": self.broker.bootstrap_servers}
        )

    def allow(self, *bindings: AclBinding) -> None:
        """Grant rights, and wait until they are in effect."""
        with self.administration() as admin:
            for future in admin.create_acls(list(bindings)).values():
                future.result(30)
            for one in bindings:
                # The controller has it; the broker itself, which is asked here, learns it later.
                wait_until(lambda one=one: _found(admin, one), 60, f"{one} to count")

    def forbid(self, *bindings: AclBinding) -> None:
        """Take rights away, and wait until they don't count any more."""
        with self.administration() as admin:
            filters = [_filter(one) for one in bindings]
            for future in admin.delete_acls(filters).values():
                assert len(future.result(30)) == 1
            for one in bindings:
                wait_until(lambda one=one: not _found(admin, one), 60, f"{one} to be gone")

    def close(self) -> None:
        """Kill it."""
        self.broker.kill()
        self.broker.release()


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _found(admin: AdminClient, binding: AclBinding) -> bool:
    """Whether the broker knows a right."""
    return bool(admin.describe_acls(_filter(binding)).result(30))


def _write_certificate(leaf: trustme.LeafCert, path: Path) -> None:
    """Write key and chain as Kafka reads them: the key in PKCS #8."""
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    written = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    path.write_bytes(written + chain)
