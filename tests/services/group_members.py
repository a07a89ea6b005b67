"""Members of a consumer group as the broker has them.

A client does not answer questions about itself while one of its callbacks runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove


def group_members(bootstrap_servers: str, group: str) -> list[dict[str, Any]]:
    """Describe the members, those that the group still waits for included."""
    with _admin(bootstrap_servers) as admin:
        members: list[dict[str, Any]] = admin.describe_groups([group])[group]["members"]
        return members


def remove_member(bootstrap_servers: str, group: str, client_id: str) -> None:
    """Remove a member, as the group does with one that it has not heard of for too long."""
    found = group_members(bootstrap_servers, group)
    (member,) = [one["member_id"] for one in found if one["client_id"] == client_id]
    with _admin(bootstrap_servers) as admin:
        admin.remove_group_members(group, [MemberToRemove(member)])


@contextmanager
def _admin(bootstrap_servers: str) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        yield admin
    finally:
        admin.close()
