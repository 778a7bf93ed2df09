import sys

import pytest

from functional_lm.reports.event_files import TensorBoardWriter


def events_of(path):
    """Return the events of a file: each follows its length, and both have a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def values_of(event):
    scalars, texts = {}, {}
    for value in event.summary.value:
        if value.HasField("tensor"):
            assert value.metadata.plugin_data.plugin_name == "text"
            texts[value.tag] = value.tensor.string_val[0].decode()
        else:
            scalars[value.tag] = value.simple_value
    return scalars, texts


def test_a_record_becomes_an_event_with_all_its_figures(run_records, tmp_path):
    pytest.importorskip("tensorboardX")
    records = run_records(10, blocks=1)
    with TensorBoardWriter(tmp_path / "new" / "run") as writer:
        for record in records:
            writer.append(record)
        (path,) = (tmp_path / "new" / "run").iterdir()
        # A record with a validation loss is on disk at once.
        assert len(events_of(path)) == 11
    assert ".tfevents." in path.name
    version, *events = events_of(path)
    assert version.file_version == "brain.Event:2"
    assert [event.step for event in events] == list(range(1, 11))
    assert all(event.wall_time >= version.wall_time for event in events)
    assert values_of(events[0]) == (
        {
            "loss/train": pytest.approx(records[0]["loss"]),
            "lr": pytest.approx(records[0]["lr"]),
            "grad_norm": pytest.approx(records[0]["grad_norm"]),
            "tokens_per_second": 1001.0,
        },
        {},
    )
    scalars, texts = values_of(events[-1])
    for tag, name in {"loss": "val_loss", "bits_per_byte": "bits_per_byte"}.items():
        assert scalars[f"{tag}/validation"] == pytest.approx(records[-1][name])
    assert scalars["update_ratio/blocks.0.mlp.up"] == pytest.approx(1e-3, rel=0.11)
    assert scalars["attention_entropy/blocks.0"] == pytest.approx(2.0, rel=0.11)
    assert texts == {"sample/text_summary": "    \n    sample of 10\n    "}


def test_what_is_not_a_finite_number_is_left_out(tmp_path):
    pytest.importorskip("tensorboardX")
    norms = {"a": None, "b": float("nan"), "c": 2}
    with TensorBoardWriter(tmp_path) as writer:
        writer.append({"step": 3, "loss": None, "lr": 0.5, "grad_norm": float("inf")})
        writer.append({"step": 4, "fault": "# not finite", "statistics": {"grad_norm": norms}})
    (path,) = tmp_path.iterdir()
    _, third, fourth = map(values_of, events_of(path))
    assert third == ({"lr": 0.5}, {})
    assert fourth == ({"grad_norm/c": 2.0}, {"fault/text_summary": "    # not finite"})


def test_a_resumed_run_writes_a_file_that_replaces_later_steps(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import SessionLog

    for purge_step, steps in [(None, (1, 2, 3)), (3, (3, 4))]:
        with TensorBoardWriter(tmp_path, purge_step) as writer:
            for step in steps:
                writer.append({"step": step, "loss": 1.0})
    first, second = sorted(tmp_path.iterdir())  # TensorBoard reads them in the order of names
    assert [event.step for event in events_of(first)] == [0, 1, 2, 3]
    version, start, *events = events_of(second)
    assert version.file_version == "brain.Event:2"
    assert start.session_log.status == SessionLog.START
    assert start.step == 3
    assert [event.step for event in events] == [3, 4]


def test_a_full_disk_is_an_error_of_the_caller(tmp_path, monkeypatch):
    """A thread of the writer's own would die of it, and the training wait for that for ever."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.record_writer import RecordWriter

    def full(self, data):
        raise OSError(28, "No space left on device")

    with TensorBoardWriter(tmp_path) as writer:
        monkeypatch.setattr(RecordWriter, "write", full)
        for step in (1, 2):
            with pytest.raises(OSError, match="No space left"):
                writer.append({"step": step, "loss": 1.0})


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'functional-lm\[log\]'"):
        TensorBoardWriter(tmp_path / "run")
    assert not (tmp_path / "run").exists()
