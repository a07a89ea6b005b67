"""Each damaged model directory of the table is refused in one line, without using memory."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from livestep import ModelError, load_model
from livestep.pipeline.exit_codes import ExitCode
from tests.hostile.model_directories import DIRECTORIES, Row, make_good

#: What a refused directory may add to the memory of this process; the hostile ones state petabytes.
MEMORY_BYTES_MAX = 256 << 20


def peak_bytes() -> int:
    """Most memory that this process has had (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("row", DIRECTORIES, ids=lambda row: row.name)
def test_a_damaged_directory_is_refused_with_the_reason(row: Row, tmp_path: Path) -> None:
    # Given a directory that loads, and is damaged then
    folder = tmp_path / "model"
    make_good(folder)
    load_model(folder)
    row.spoil(folder)
    before = peak_bytes()

    # When it is loaded, then the error says what is wrong, in one line
    with pytest.raises(ModelError) as raised:
        load_model(folder)
    assert row.message in str(raised.value)
    assert "\n" not in str(raised.value)

    # And nothing of what it states was allocated
    assert peak_bytes() - before < MEMORY_BYTES_MAX
    assert ExitCode.MODEL == 6


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_file_that_may_not_be_read_is_named(name: str, tmp_path: Path) -> None:
    make_good(tmp_path)
    (tmp_path / name).chmod(0)
    try:
        (tmp_path / name).read_bytes()
    except PermissionError:
        with pytest.raises(ModelError, match=f"{name}: can't be read: Permission denied"):
            load_model(tmp_path)
    else:
        assert load_model(tmp_path).net is not None  # root may read everything
