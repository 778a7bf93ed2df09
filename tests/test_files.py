import os

import pytest

from functional_lm.files import write_atomic


def test_text_and_bytes(tmp_path):
    write_atomic(tmp_path / "a", "é")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert oct((tmp_path / "a").stat().st_mode)[-3:] == "644"


@pytest.mark.parametrize("name", ["replace", "write", "fsync"])
def test_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch, name):
    write_atomic(tmp_path / "a", "old")

    def fail(*arguments):
        raise OSError("no space")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
