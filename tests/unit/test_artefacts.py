"""Artefacts appear whole or not at all, and a broken one is named and never used."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from memleak import artefacts
from memleak.artefacts import ArtefactError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    artefacts.write_json(path, {"old": 1})

    with pytest.raises(ValueError, match="not JSON compliant"):
        artefacts.write_json(path, {"new": float("nan")})

    assert artefacts.read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left on device")])
def test_a_full_disk_is_one_sentence_and_no_half_file(tmp_path, fault):
    with pytest.raises(ArtefactError, match="the disk is full; nothing was left half-written"):
        with artefacts.atomic(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise fault

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_really_full_device_is_said_so():
    with pytest.raises(ArtefactError, match="the disk is full"):
        with artefacts.atomic("/dev/shm/memleak-full-test"), open("/dev/full", "wb") as device:
            device.write(b"x" * 100_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges, which only root can")
def test_no_permission_is_one_sentence(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    program = (
        "import os; from memleak import artefacts\n"  # imported before the drop: the environment may be root's alone
        f"os.setuid(65534)\nartefacts.write_json({str(locked / 'a.json')!r}, 1)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "no permission to write" in done.stderr
    assert list(locked.iterdir()) == []


def test_a_table_comes_back_as_it_was(tmp_path):
    table = pd.DataFrame({"target_id": ["m"], "sample_id": [3], "score": [0.5]})
    artefacts.write_table(tmp_path / "t.parquet", table, {"attack": "x"})

    pd.testing.assert_frame_equal(artefacts.read_table(tmp_path / "t.parquet", artefacts.SCORE_COLUMNS), table, check_dtype=False)
    assert artefacts.read_facts(tmp_path / "t.parquet") == {"attack": "x"}


@pytest.mark.parametrize("size", [0, 1, 10, 200])
def test_a_truncated_table_is_named(tmp_path, size):
    path = tmp_path / "t.parquet"
    artefacts.write_table(path, pd.DataFrame({"a": np.arange(1000)}))
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(ArtefactError, match=r"t\.parquet: truncated or not Parquet .*; delete it and run again"):
        artefacts.read_table(path, ["a"])


def test_a_table_of_another_stage_is_named(tmp_path):
    artefacts.write_table(tmp_path / "t.parquet", pd.DataFrame({"a": [1]}))

    with pytest.raises(ArtefactError, match="has no column score; it holds a: not a file of this stage"):
        artefacts.read_table(tmp_path / "t.parquet", ["score"])


@pytest.mark.parametrize("read", [artefacts.read_json, artefacts.read_facts, artefacts.read_array, artefacts.read_shard_facts])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ArtefactError, match="nowhere: missing; run the workflow to make it"):
        read(tmp_path / "nowhere")


def test_files_get_the_rights_that_the_user_asks_for(tmp_path):
    artefacts.write_json(tmp_path / "a.json", 1)

    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~umask
