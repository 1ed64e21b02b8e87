"""Bodies as compaction sees them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.metadata import BodyError, messages, split_body
from magnetar.broker.wire.pulsar.opened import open_body
from tests.topics.bodies import Said, batch, body_of, chunks, metadata, single

CODECS = [api.NONE, api.LZ4, api.ZLIB, api.ZSTD, api.SNAPPY]
SAID = st.builds(
    Said, st.one_of(st.none(), st.text(max_size=3)), st.one_of(st.none(), st.binary(max_size=40))
)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("value", "deletes"), [(b"x", False), (b"", True), (None, True)])
def test_a_message_deletes_its_key_when_it_is_null_or_empty(
    codec: api.CompressionType, value: bytes | None, deletes: bool
) -> None:
    opened = open_body(single(Said("k", value), codec).body)
    assert (opened.key, opened.deletes, opened.batch, opened.sealed) == (
        b"k",
        deletes,
        False,
        False,
    )


def test_an_encrypted_message_has_its_key_in_the_open() -> None:
    about = metadata(partition_key="k", compression=api.LZ4, uncompressed_size=0)
    about.encryption_keys.add(key="a", value=b"b")
    opened = open_body(body_of(about, b"secret"))
    assert (opened.key, opened.deletes, opened.sealed) == (b"k", False, False)


def test_an_encrypted_batch_is_sealed() -> None:
    assert open_body(batch([Said("a", b"1")], encrypted=True).body).sealed


@pytest.mark.parametrize("body", [b"", b"\0\0\0\xff", b"\0\0\0\x01\xff"])
def test_what_cannot_be_read_is_sealed(body: bytes) -> None:
    opened = open_body(body)
    assert (opened.sealed, opened.batch, opened.key, opened.chunk) == (True, False, None, None)


def test_chunks_tell_which_message_they_are_of() -> None:
    found = [open_body(each.body) for each in chunks(Said("k", b"abcdef"), "u", 3)]
    assert [each.chunk for each in found] == [("u", 0, 3), ("u", 1, 3), ("u", 2, 3)]
    assert {each.key for each in found} == {b"k"}


@given(st.lists(SAID, min_size=1, max_size=70), st.sampled_from(CODECS), st.data())
def test_a_rewritten_batch_has_what_was_kept_and_nothing_else(
    said: list[Said], codec: api.CompressionType, data: st.DataObject
) -> None:
    opened = open_body(batch(said, codec).body)
    contents = opened.contents()
    keys = list(opened.keys(contents))
    assert keys == [
        (None if each.key is None else each.key.encode(), not each.value) for each in said
    ]
    keep = data.draw(st.lists(st.booleans(), min_size=len(said), max_size=len(said)))
    body = opened.rewritten(list(opened.pieces(contents, keep)), keep)
    left = messages(body)
    assert [not each.compacted_out for each in left] == keep
    for before, after, kept in zip(said, left, keep, strict=True):
        assert after.payload == ((before.value or b"") if kept else b"")
        assert after.key == (before.key if kept else None)
    again = open_body(body)
    assert [each is not None for each in again.keys(again.contents())] == keep
    words = again.survivors()
    assert [bool(words[i // 64] >> i % 64 & 1) for i in range(len(said))] == keep
    about, _ = split_body(body)
    assert list(about.compacted_batch_indexes) == [i for i, kept in enumerate(keep) if kept]
    assert about.num_messages_in_batch == len(said)


def test_contents_that_end_too_early_are_an_error_of_their_producer() -> None:
    about = metadata(num_messages_in_batch=3)
    opened = open_body(body_of(about, b"\0\0\0\x02\x18\0"))
    with pytest.raises(BodyError):
        list(opened.keys(opened.contents()))


def test_contents_that_claim_to_be_huge_are_not_decompressed() -> None:
    about = metadata(num_messages_in_batch=1, compression=api.ZLIB, uncompressed_size=2**31)
    with pytest.raises(BodyError, match="the limit"):
        open_body(body_of(about, b"x")).contents()
