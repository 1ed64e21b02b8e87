"""Entries made here are like those that came in a SEND."""

from crc32c import crc32c

from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar.frames import encode_payload_frame
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import made, run_of
from magnetar.broker.wire.pulsar.walker import walk


def head(sequence_id: int, **more: object) -> api.MessageMetadata:
    return api.MessageMetadata(
        producer_name="p",
        sequence_id=sequence_id,
        publish_time=9,
        **more,  # type: ignore[arg-type]
    )


def test_a_row_is_what_the_walker_would_have_made_of_the_same_send() -> None:
    metadata = head(
        3, partition_key="k", deliver_at_time=77, num_messages_in_batch=2, highest_sequence_id=4
    )
    send = api.BaseCommand(
        type=api.BaseCommand.SEND,
        send=api.CommandSend(producer_id=5, sequence_id=3, num_messages=2, highest_sequence_id=4),
    )
    frame = encode_payload_frame(send, metadata.SerializeToString(), b"payload")
    walked = walk(memoryview(frame), 0, len(frame), {5: 1}).run
    assert walked is not None
    ours = run_of([(1, made(metadata, b"payload", 2))])
    theirs = walked.envelope(0)._replace(offset=0)
    assert ours.envelope(0) == theirs
    assert bytes(ours.body(0)) == bytes(walked.body(0))


def test_several_entries_lie_behind_each_other() -> None:
    run: Run = run_of([(0, made(head(1), b"a")), (2, made(head(2), b"bb"))])
    assert [each.producer for each in run.envelopes()] == [0, 2]
    for row in range(2):
        assert crc32c(run.body(row)) == run.envelope(row).checksum
    assert bytes(run.body(1)).endswith(b"bb")
