# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The hot half of the codec in compiled code: `walker.walk`, and the replies of `replies`.

    socket read ──▶ walk            usual SEND, ACK: read here, into rows and few objects
                      └ any other frame ──▶ walker.walk, for that frame alone
    commit      ──▶ encode_receipts one call for all of them
    delivery    ──▶ encode_messages small bodies, nothing delivered before; else replies'

The drawings and the rules stand in those two modules. Here is only what comes in thousands. A
frame in which anything is unusual, damaged, or merely longer than expected is handed to the plain
walker as it is; so results and errors are the same because they come from the same code.

Nothing here trusts a byte: every position is compared with the end of the frame, or of the part
of it that is being read, before it is read. Frames, commands, metadata and entries end where their
sizes say, and those are compared with what they lie in. Rows that a run carries are compared with
its buffer before they are followed.
"""

import sys

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_FromUnsignedLongLong
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from magnetar.broker.entry import EntryFlags
from magnetar.broker.port import Acknowledged, Neighbours
from magnetar.broker.run import ROW_SIZE, Run
from magnetar.broker.wire.pulsar import replies, walker
from magnetar.broker.wire.pulsar.frames import CHECKSUM_MAGIC, FRAME_BYTES_MAX, FrameError
from magnetar.broker.wire.pulsar.keys import key_hash

cdef extern from "_crc32c.h":
    int magnetar_crc32c_init() noexcept nogil
    uint32_t magnetar_crc32c(uint32_t crc, const void *data, size_t size) noexcept nogil
    uint32_t magnetar_crc32c_by_table(uint32_t crc, const uint8_t *data, size_t size) noexcept nogil


ctypedef struct Row:
    uint32_t offset
    uint32_t length
    uint32_t checksum
    uint32_t messages
    uint32_t key_hash
    uint32_t flags
    uint32_t producer
    uint32_t transaction
    int64_t sequence_id
    int64_t highest_sequence_id
    int64_t publish_time
    int64_t deliver_at
    int64_t first_index
    int64_t broker_time


ctypedef struct Parsed:
    # What a SEND says, before anybody has looked at its entry.
    uint64_t producer_id
    int64_t sequence_id
    int64_t highest_sequence_id
    uint32_t messages


if sys.byteorder != "little" or sizeof(Row) != ROW_SIZE:
    raise ImportError("rows are little-endian, this machine is not")

CRC_BY_INSTRUCTION = bool(magnetar_crc32c_init())
"""Whether checksums are computed by the processor's own instruction."""

cdef object _new_tuple = tuple.__new__
cdef object _Ack = walker.Ack
cdef object _plain_walk = walker.walk

cdef enum:
    BATCH = 1 << 8
    ENCRYPTED = 1 << 9
    CHUNK = 1 << 10
    LAST_CHUNK = 1 << 11
    KEYED = 1 << 12
    MARKER = 1 << 13
    REPLICATED = 1 << 14
    TRANSACTIONAL = 1 << 15

if (
    BATCH != EntryFlags.BATCH
    or ENCRYPTED != EntryFlags.ENCRYPTED
    or CHUNK != EntryFlags.CHUNK
    or LAST_CHUNK != EntryFlags.LAST_CHUNK
    or KEYED != EntryFlags.KEYED
    or MARKER != EntryFlags.MARKER
    or REPLICATED != EntryFlags.REPLICATED
    or TRANSACTIONAL != EntryFlags.TRANSACTIONAL
    or CHECKSUM_MAGIC != 0x0E01
):
    raise ImportError("built for another version of broker/entry.py")

cdef enum:
    SLOTS_KEPT = 64  # a power of two
    ROWS_AT_FIRST = 1024
    IDS_MIN = 8
    ENTRY_BYTES_MIN = 10
    SEEN_ALL = 7

cdef uint32_t MESSAGES_PER_BATCH_MAX = walker.MESSAGES_PER_BATCH_MAX
cdef Py_ssize_t JOINED_BYTES_MAX = replies.JOINED_BYTES_MAX
cdef Py_ssize_t JOIN_BYTES_MAX = replies.JOIN_BYTES_MAX


# --- numbers -----------------------------------------------------------------------------


cdef inline uint32_t _u32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline void _put_u32(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = value >> 24
    at[1] = value >> 16 & 0xFF
    at[2] = value >> 8 & 0xFF
    at[3] = value & 0xFF


cdef inline const uint8_t *_varint(
    const uint8_t *at, const uint8_t *end, uint64_t *value
) noexcept nogil:
    """Read the number at `at`; return the position after it, or NULL if it does not end."""
    cdef uint64_t found = 0
    cdef int shift = 0
    cdef uint8_t byte
    while at < end and shift < 70:
        byte = at[0]
        at += 1
        found |= <uint64_t>(byte & 0x7F) << shift
        if byte < 128:
            value[0] = found
            return at
        shift += 7
    return NULL


cdef inline uint8_t *_put_varint(uint8_t *at, uint64_t value) noexcept nogil:
    while value > 127:
        at[0] = value & 0x7F | 0x80
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


cdef inline int _varint_size(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value > 127:
        size += 1
        value >>= 7
    return size


cdef uint32_t _murmur3(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint32_t value = 0, word
    cdef size_t at = 0
    while size - at >= 4:
        memcpy(&word, data + at, 4)
        word *= <uint32_t>0xCC9E2D51
        word = (word << 15 | word >> 17) * <uint32_t>0x1B873593
        value ^= word
        value = (value << 13 | value >> 19) * 5 + <uint32_t>0xE6546B64
        at += 4
    if at < size:
        word = data[at]
        if size - at > 1:
            word |= <uint32_t>data[at + 1] << 8
        if size - at > 2:
            word |= <uint32_t>data[at + 2] << 16
        word *= <uint32_t>0xCC9E2D51
        value ^= (word << 15 | word >> 17) * <uint32_t>0x1B873593
    value ^= <uint32_t>size
    value = (value ^ value >> 16) * <uint32_t>0x85EBCA6B
    value = (value ^ value >> 13) * <uint32_t>0xC2B2AE35
    return value ^ value >> 16


# --- the walk ----------------------------------------------------------------------------


def walk(
    buffer,
    Py_ssize_t start,
    Py_ssize_t end,
    slots,
    Py_ssize_t frame_bytes_max=FRAME_BYTES_MAX,
):
    """Do what `walker.walk` does.

    Raises:
        ValueError: `start` and `end` are no part of the buffer.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= start <= end <= view.len or view.len > <Py_ssize_t>0xFFFFFFFF:
            raise ValueError(f"bytes {start} to {end} of a buffer of {view.len}")
        return _walk(buffer, <const uint8_t *>view.buf, start, end, slots, frame_bytes_max)
    finally:
        PyBuffer_Release(&view)


cdef object _walk(
    object buffer,
    const uint8_t *data,
    Py_ssize_t start,
    Py_ssize_t end,
    object slots,
    Py_ssize_t frame_bytes_max,
):
    cdef list acks = [], flows = [], strays = [], broken = []
    cdef bytearray rows = None
    cdef Py_ssize_t count = 0, capacity = 0
    cdef Py_ssize_t position = start, frame_end, total_size, frame_bytes = 0
    cdef uint32_t command_size
    cdef const uint8_t *frame
    cdef const uint8_t *command_end
    cdef Parsed send
    cdef Row row
    cdef int64_t slot
    cdef bint more = False, taken
    cdef uint64_t slot_ids[SLOTS_KEPT]
    cdef int64_t slot_found[SLOTS_KEPT]
    cdef bint slots_used = False
    cdef int at
    cdef object command = None, ack, one, each
    cdef dict transactions = None
    while end - position >= 4:
        frame = data + position
        total_size = _u32(frame)
        frame_end = position + 4 + total_size
        if total_size <= frame_bytes_max and frame_end > end:
            frame_bytes = 4 + total_size
            break
        taken = False
        if total_size <= frame_bytes_max and total_size >= 12:
            command_size = _u32(frame + 4)
            if 8 <= command_size <= total_size - 4 and frame[8] == 0x08:
                command_end = frame + 8 + command_size
                if frame[9] == 0x06:
                    if (
                        frame[10] == 0x32
                        and frame[11] == command_size - 4
                        and _read_send(frame + 12, command_end, &send)
                    ):
                        at = send.producer_id & (SLOTS_KEPT - 1)
                        if not slots_used:
                            slots_used = True
                            for slot in range(SLOTS_KEPT):
                                slot_found[slot] = -1
                        if slot_found[at] >= 0 and slot_ids[at] == send.producer_id:
                            slot = slot_found[at]
                        else:
                            each = slots.get(PyLong_FromUnsignedLongLong(send.producer_id))
                            slot = -1 if each is None else each
                            slot_ids[at] = send.producer_id
                            slot_found[at] = slot
                        if slot >= 0:
                            taken = _read_entry(
                                data, command_end, data + frame_end, &send, &row
                            )
                        if taken:
                            if count == capacity:
                                if rows is None:
                                    rows = bytearray()
                                    capacity = min(
                                        (end - position) // (4 + total_size) + 1, ROWS_AT_FIRST
                                    )
                                else:
                                    capacity *= 2
                                PyByteArray_Resize(rows, capacity * ROW_BYTES)
                            row.producer = <uint32_t>slot
                            memcpy(
                                PyByteArray_AS_STRING(rows) + count * ROW_BYTES, &row, ROW_BYTES
                            )
                            count += 1
                elif frame[9] == 0x0A and frame[10] == 0x52 and command_end == data + frame_end:
                    ack = _read_ack(frame + 11, command_end)
                    if ack is not None:
                        acks.append(ack)
                        taken = True
        if not taken:
            # Rare, or wrong: the plain walker's business.
            try:
                one = _plain_walk(
                    buffer,
                    position,
                    frame_end if total_size <= frame_bytes_max else end,
                    slots,
                    frame_bytes_max,
                )
            except FrameError:
                if position == start:
                    raise
                more = True
                break
            if one.run is not None:
                if rows is None:
                    rows = bytearray()
                if count == capacity:
                    capacity += ROWS_AT_FIRST
                    PyByteArray_Resize(rows, capacity * ROW_BYTES)
                rows[count * ROW_BYTES : (count + 1) * ROW_BYTES] = one.run.rows
                if one.run.transactions:
                    transactions = {} if transactions is None else transactions
                    (<Row *>PyByteArray_AS_STRING(rows))[count].transaction = (
                        transactions.setdefault(one.run.transactions[0], len(transactions) + 1)
                    )
                count += 1
            acks += one.acks
            flows += one.flows
            strays += one.strays
            for each in one.broken:
                broken.append(each._replace(row=count))
            if one.command is not None:
                command = one.command
                position = frame_end
                more = position < end
                break
        position = frame_end
    run = None
    if count:
        PyByteArray_Resize(rows, count * ROW_BYTES)
        run = Run(rows, buffer)
        if transactions:
            run.transactions = list(transactions)
    return _new_tuple(
        walker.Walk,
        (run, acks, flows, strays, broken, command, position, more, frame_bytes),
    )


cdef enum:
    ROW_BYTES = 80


cdef bint _read_send(const uint8_t *at, const uint8_t *end, Parsed *send) noexcept nogil:
    """Read the fields of a SEND as libraries write them; false: they are not like that."""
    cdef uint64_t value
    cdef int32_t messages
    cdef uint8_t tag
    if at >= end or at[0] != 0x08:
        return False
    at = _varint(at + 1, end, &send.producer_id)
    if at == NULL or at >= end or at[0] != 0x10:
        return False
    at = _varint(at + 1, end, &value)
    if at == NULL:
        return False
    send.sequence_id = send.highest_sequence_id = <int64_t>value
    send.messages = 1
    while at < end:
        tag = at[0]
        at = _varint(at + 1, end, &value)
        if at == NULL:
            return False
        if tag == 0x18:
            messages = <int32_t>(<uint32_t>value)
            send.messages = <uint32_t>messages if messages > 1 else 1
        elif tag == 0x30:
            send.highest_sequence_id = <int64_t>value
        elif tag != 0x38 and tag != 0x40:
            return False
    return True


cdef bint _read_entry(
    const uint8_t *data,
    const uint8_t *at,
    const uint8_t *end,
    const Parsed *send,
    Row *row,
) except? True:
    """Read what is behind the command of a SEND into a row; false: leave it to the plain walker."""
    cdef uint32_t checksum, metadata_size
    cdef const uint8_t *body = at
    cdef bint claimed
    if end - at < ENTRY_BYTES_MIN:
        return False
    claimed = at[0] == 0x0E and at[1] == 0x01
    if claimed:
        body = at + 6
    metadata_size = _u32(body)
    if metadata_size > end - body - 4:
        return False
    row.messages = send.messages
    row.publish_time = row.deliver_at = row.first_index = row.broker_time = 0
    row.key_hash = row.flags = row.transaction = 0
    if not _read_metadata(body + 4, body + 4 + metadata_size, row):
        return False
    if row.messages > MESSAGES_PER_BATCH_MAX:
        return False
    checksum = magnetar_crc32c(0, body, end - body)
    if claimed and checksum != _u32(at + 2):
        return False
    row.offset = <uint32_t>(body - data)
    row.length = <uint32_t>(end - body)
    row.checksum = checksum
    row.sequence_id = send.sequence_id
    row.highest_sequence_id = max(send.highest_sequence_id, send.sequence_id)
    return True


cdef bint _read_metadata(const uint8_t *at, const uint8_t *end, Row *row) except? True:
    """Read what a row needs of a MessageMetadata; false: leave it to the plain walker."""
    cdef uint64_t tag, value
    cdef int32_t number, chunks = 0, chunk = 0
    cdef int seen = 0
    cdef uint32_t flags = 0
    cdef const uint8_t *key = NULL
    cdef const uint8_t *ordering = NULL
    cdef Py_ssize_t key_size = 0, ordering_size = 0
    cdef bint base64 = False
    cdef int wire_type
    while at < end:
        at = _varint(at, end, &tag)
        if at == NULL or tag < 8 or tag > 0xFFFFFFFF:
            return False
        wire_type = tag & 7
        if wire_type == 0:
            at = _varint(at, end, &value)
            if at == NULL:
                return False
            if tag == 2 << 3:
                seen |= 2
            elif tag == 3 << 3:
                row.publish_time = <int64_t>value
                seen |= 4
            elif tag == 11 << 3:
                number = <int32_t>(<uint32_t>value)
                if number < 1:
                    return False
                row.messages = <uint32_t>number
                flags |= BATCH
            elif tag == 17 << 3:
                base64 = value != 0
            elif tag == 19 << 3:
                row.deliver_at = max(<int64_t>value, 0)
            elif tag == 20 << 3:
                flags |= MARKER
            elif tag == 22 << 3 or tag == 23 << 3:
                flags |= TRANSACTIONAL
            elif tag == 27 << 3:
                chunks = <int32_t>(<uint32_t>value)
            elif tag == 29 << 3:
                chunk = <int32_t>(<uint32_t>value)
        elif wire_type == 2:
            at = _varint(at, end, &value)
            if at == NULL or value > <uint64_t>(end - at):
                return False
            if tag == (1 << 3 | 2):
                seen |= 1
            elif tag == (5 << 3 | 2):
                flags |= REPLICATED
            elif tag == (6 << 3 | 2):
                key, key_size = at, <Py_ssize_t>value
            elif tag == (13 << 3 | 2):
                flags |= ENCRYPTED
            elif tag == (18 << 3 | 2):
                ordering, ordering_size = at, <Py_ssize_t>value
            at += value
        elif wire_type == 1:
            if end - at < 8:
                return False
            at += 8
        elif wire_type == 5:
            if end - at < 4:
                return False
            at += 4
        else:
            return False
    if seen != SEEN_ALL:
        return False
    if ordering != NULL:
        row.key_hash = _murmur3(ordering, ordering_size) & 0x7FFFFFFF
        flags |= KEYED
    elif key != NULL:
        if base64:
            row.key_hash = key_hash(
                PyBytes_FromStringAndSize(<const char *>key, key_size), base64=True
            )
        else:
            row.key_hash = _murmur3(key, key_size) & 0x7FFFFFFF
        flags |= KEYED
    if chunks > 1:
        flags |= (CHUNK | LAST_CHUNK) if chunk == chunks - 1 else CHUNK
    row.flags = flags
    return True


cdef object _read_ack(const uint8_t *at, const uint8_t *end):
    """Read the contents of an ACK as libraries write them; None: leave it to the plain walker."""
    cdef uint64_t size, consumer_id, ledger, entry, request_id
    cdef uint64_t first_ledger = 0, first_entry = 0
    cdef Py_ssize_t alike = 0
    cdef const uint8_t *id_end
    cdef list ids = None
    cdef object asked = None
    cdef uint8_t kind
    at = _varint(at, end, &size)
    if at == NULL or size != <uint64_t>(end - at) or end - at < 4 or at[0] != 0x08:
        return None
    at = _varint(at + 1, end, &consumer_id)
    if at == NULL or end - at < 2 or at[0] != 0x10 or at[1] > 1:
        return None
    kind = at[1]
    at += 2
    while at < end and at[0] == 0x1A:
        if end - at < 6 or at[1] > end - at - 2:
            return None
        id_end = at + 2 + at[1]
        if at[1] > 127 or at[1] < 4 or at[2] != 0x08:
            return None
        at = _varint(at + 3, id_end, &ledger)
        if at == NULL or at >= id_end or at[0] != 0x10:
            return None
        at = _varint(at + 1, id_end, &entry)
        if at != id_end or ledger >> 63 or entry >> 63:
            return None
        if ids is None:
            if not alike:
                first_ledger, first_entry = ledger, entry
            if ledger == first_ledger and entry == first_entry + <uint64_t>alike:
                alike += 1
                continue
            ids = _neighbours(first_ledger, first_entry, alike)
        ids.append(_new_tuple(Acknowledged, (ledger, entry, ())))
    if at < end:
        if at[0] != 0x40:
            return None
        at = _varint(at + 1, end, &request_id)
        if at != end:
            return None
        asked = request_id
    if ids is not None:
        found = ids
    elif alike > IDS_MIN:
        found = Neighbours(first_ledger, range(first_entry, first_entry + alike))
    else:
        found = _neighbours(first_ledger, first_entry, alike)
    return _new_tuple(_Ack, (consumer_id, found, kind == 1, asked, None, None))


cdef list _neighbours(uint64_t ledger, uint64_t entry, Py_ssize_t count):
    cdef Py_ssize_t more
    return [_new_tuple(Acknowledged, (ledger, entry + more, ())) for more in range(count)]


# --- receipts ----------------------------------------------------------------------------


def encode_receipts(producer_ids, run, groups):
    """Do what `replies.encode_receipts` does.

    Raises:
        IndexError: a group names rows that the run has not, or a slot that is not there.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(run.rows, &view, PyBUF_SIMPLE)
    try:
        return _encode_receipts(
            producer_ids, <const Row *>view.buf, view.len // ROW_BYTES, groups
        )
    finally:
        PyBuffer_Release(&view)


cdef bytes _encode_receipts(object producer_ids, const Row *rows, Py_ssize_t count, object groups):
    cdef list each
    cdef Py_ssize_t size = 0, slot, first, number, number_of_slots = len(producer_ids)
    cdef int64_t ledger, entry
    cdef uint64_t producer
    cdef bytes receipts
    cdef uint8_t *at
    for group in groups:
        slot, first, number, ledger, entry, _ = group
        if first < 0 or number < 0 or first > count or number > count - first:
            raise IndexError(f"rows {first} to {first + number} of a run of {count}")
        if not 0 <= slot < number_of_slots:
            raise IndexError(f"slot {slot} of {number_of_slots}")
        producer = producer_ids[slot]
        size += _receipts_size(rows + first, number, producer, ledger, entry)
    receipts = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t *>PyBytes_AS_STRING(receipts)
    for group in groups:
        slot, first, number, ledger, entry, _ = group
        producer = producer_ids[slot]
        at = _put_receipts(at, rows + first, number, producer, ledger, entry)
    assert at == <uint8_t *>PyBytes_AS_STRING(receipts) + size
    return receipts


cdef Py_ssize_t _receipts_size(
    const Row *row, Py_ssize_t count, uint64_t producer, int64_t ledger, int64_t entry
) noexcept nogil:
    cdef Py_ssize_t size = count * (17 + _varint_size(producer) + 1 + _varint_size(<uint64_t>ledger))
    cdef Py_ssize_t i
    for i in range(count):
        size += _varint_size(<uint64_t>row[i].sequence_id)
        size += _varint_size(<uint64_t>(entry + i if ledger >= 0 else -1))
        if row[i].highest_sequence_id != row[i].sequence_id:
            size += 1 + _varint_size(<uint64_t>row[i].highest_sequence_id)
    return size


cdef uint8_t *_put_receipts(
    uint8_t *at,
    const Row *row,
    Py_ssize_t count,
    uint64_t producer,
    int64_t ledger,
    int64_t entry,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t *start
    cdef uint8_t *id_size
    for i in range(count):
        start = at
        at[8] = 0x08
        at[9] = 0x07
        at[10] = 0x3A
        at[12] = 0x08
        at = _put_varint(at + 13, producer)
        at[0] = 0x10
        at = _put_varint(at + 1, <uint64_t>row[i].sequence_id)
        at[0] = 0x1A
        id_size = at + 1
        at[2] = 0x08
        at = _put_varint(at + 3, <uint64_t>ledger)
        at[0] = 0x10
        at = _put_varint(at + 1, <uint64_t>(entry + i if ledger >= 0 else -1))
        id_size[0] = <uint8_t>(at - id_size - 1)
        if row[i].highest_sequence_id != row[i].sequence_id:
            at[0] = 0x20
            at = _put_varint(at + 1, <uint64_t>row[i].highest_sequence_id)
        start[11] = <uint8_t>(at - start - 12)
        _put_u32(start, <uint32_t>(at - start - 4))
        _put_u32(start + 4, <uint32_t>(at - start - 8))
    return at


# --- messages ----------------------------------------------------------------------------


cdef struct Head:
    # What is the same in all MESSAGE frames of a selection.
    uint64_t consumer_id
    uint64_t ledger
    int64_t first_entry
    int64_t partition  # -1: none
    uint64_t epoch
    bint has_epoch


def encode_messages(consumer_id, int64_t partition, run, selection):
    """Do what `replies.encode_messages` does.

    Raises:
        IndexError: a selection names rows that the run has not, or these lead out of its buffer.
    """
    cdef Py_buffer rows_view, view
    cdef Head head
    if selection.redeliveries or selection.ack_sets:
        return replies.encode_messages(consumer_id, partition, run, selection)
    head.consumer_id = consumer_id
    head.ledger = <uint64_t>(<int64_t>selection.ledger)
    head.first_entry = selection.first_entry
    head.partition = partition
    head.has_epoch = selection.epoch is not None
    head.epoch = selection.epoch if head.has_epoch else 0
    PyObject_GetBuffer(run.rows, &rows_view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(run.buffer, &view, PyBUF_SIMPLE)
        try:
            made = _encode_messages(
                &head,
                <const Row *>rows_view.buf,
                rows_view.len // ROW_BYTES,
                <const uint8_t *>view.buf,
                view.len,
                run.base,
                selection.rows,
            )
        finally:
            PyBuffer_Release(&view)
    finally:
        PyBuffer_Release(&rows_view)
    if made is None:  # large bodies, which are not to be copied
        return replies.encode_messages(consumer_id, partition, run, selection)
    return made


cdef list _encode_messages(
    const Head *head,
    const Row *rows,
    Py_ssize_t count,
    const uint8_t *data,
    Py_ssize_t data_size,
    int64_t base,
    object chosen,
):
    cdef Py_ssize_t i, row, number = len(chosen), first = 0, step = 1, size, each
    cdef Py_ssize_t bodies = 0, done = 0, upto
    cdef int64_t place
    cdef bint neighbours = isinstance(chosen, range)
    cdef list buffers = []
    cdef bytes joined
    cdef uint8_t *at
    if neighbours:
        first, step = chosen.start, chosen.step
    for i in range(number):
        row = first + i * step if neighbours else chosen[i]
        if not 0 <= row < count:
            raise IndexError(f"row {row} of a run of {count}")
        place = <int64_t>rows[row].offset - base
        if place < 0 or place > data_size or rows[row].length > data_size - place:
            raise IndexError(f"row {row} leads out of a buffer of {data_size} bytes")
        bodies += rows[row].length
    if bodies >= JOIN_BYTES_MAX * number:
        return None if number else buffers
    while done < number:
        size = 0
        upto = done
        while upto < number:
            row = first + upto * step if neighbours else chosen[upto]
            each = _head_size(head, row) + rows[row].length
            if size + each > JOINED_BYTES_MAX and upto > done:
                break
            size += each
            upto += 1
        joined = PyBytes_FromStringAndSize(NULL, size)
        at = <uint8_t *>PyBytes_AS_STRING(joined)
        for i in range(done, upto):
            row = first + i * step if neighbours else chosen[i]
            at = _put_message(at, head, row, rows + row, data + rows[row].offset - base)
        assert at == <uint8_t *>PyBytes_AS_STRING(joined) + size
        buffers.append(joined)
        done = upto
    return buffers


cdef inline int _id_size(const Head *head, int64_t row) noexcept nogil:
    cdef int size = 2 + _varint_size(head.ledger) + _varint_size(<uint64_t>(head.first_entry + row))
    return size if head.partition == -1 else size + 1 + _varint_size(<uint64_t>head.partition)


cdef inline int _content_size(const Head *head, int id_size) noexcept nogil:
    cdef int size = 1 + _varint_size(head.consumer_id) + 1 + _varint_size(id_size) + id_size
    return size + 1 + _varint_size(head.epoch) if head.has_epoch else size


cdef inline Py_ssize_t _head_size(const Head *head, int64_t row) noexcept nogil:
    """Return the size of everything before a body."""
    cdef int content = _content_size(head, _id_size(head, row))
    return 8 + 3 + _varint_size(content) + content + 6


cdef inline uint8_t *_put_message(
    uint8_t *at, const Head *head, int64_t number, const Row *row, const uint8_t *body
) noexcept nogil:
    cdef int id_size = _id_size(head, number)
    cdef int content = _content_size(head, id_size)
    cdef uint32_t command = 3 + _varint_size(content) + content
    _put_u32(at, 4 + command + 6 + row.length)
    _put_u32(at + 4, command)
    at[8] = 0x08
    at[9] = 0x09
    at[10] = 0x4A
    at = _put_varint(at + 11, content)
    at[0] = 0x08
    at = _put_varint(at + 1, head.consumer_id)
    at[0] = 0x12
    at = _put_varint(at + 1, id_size)
    at[0] = 0x08
    at = _put_varint(at + 1, head.ledger)
    at[0] = 0x10
    at = _put_varint(at + 1, <uint64_t>(head.first_entry + number))
    if head.partition != -1:
        at[0] = 0x18
        at = _put_varint(at + 1, <uint64_t>head.partition)
    if head.has_epoch:
        at[0] = 0x28
        at = _put_varint(at + 1, head.epoch)
    at[0] = 0x0E
    at[1] = 0x01
    _put_u32(at + 2, row.checksum)
    memcpy(at + 6, body, row.length)
    return at + 6 + row.length


# --- for tests ---------------------------------------------------------------------------


def crc32c(data, uint32_t crc=0, *, bint by_table=False):
    """Return the CRC32-C of some bytes, after others whose CRC32-C is `crc`."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if by_table:
            return magnetar_crc32c_by_table(crc, <const uint8_t *>view.buf, view.len)
        return magnetar_crc32c(crc, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
