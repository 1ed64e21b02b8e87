# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The positions of a published run in compiled code: what `measuring` does for each entry.

    gathered   ordered by producer, and measured: one pass, two where producers are mixed
    stamp      indexes and the broker's time into the rows of all groups
    stamped    both, for rows of one producer
    rising     whether deduplication has nothing to look up

The rules stand in `measuring`: these do the same. What each returns are numbers
that were read from the rows; nothing in a row is followed anywhere.
"""

import sys

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import ROW_SIZE
from magnetar.broker.topics.producers import measuring as plain


cdef struct Row:
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


cdef enum:
    CHUNK = 1 << 10

if (
    sys.byteorder != "little"
    or sizeof(Row) != ROW_SIZE
    or CHUNK != EntryFlags.CHUNK
):
    raise ImportError("built for another version of rows, or another machine")

cdef object Taken = plain.Taken
cdef object _new_tuple = tuple.__new__


def gathered(rows):
    """Order rows by producer and measure them, as `measuring.gathered` does."""
    cdef Py_buffer given
    cdef const Row *at
    cdef Py_ssize_t count, i, first
    cdef bint ordered = True
    cdef bytearray moved = None
    cdef list found = []
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
    try:
        at = <const Row *>given.buf
        count = given.len // sizeof(Row)
        for i in range(1, count):
            if at[i].producer < at[i - 1].producer:
                ordered = False
                break
        if not ordered:
            moved = _ordered(at, count)
            at = <const Row *>PyByteArray_AS_STRING(moved)
        first = 0
        for i in range(1, count + 1):
            if i == count or at[i].producer != at[first].producer:
                found.append(_taken(at, first, i))
                first = i
    finally:
        PyBuffer_Release(&given)
    return moved, found


cdef int _compare(const void *one, const void *other) noexcept nogil:
    cdef uint64_t a = (<const uint64_t *>one)[0], b = (<const uint64_t *>other)[0]
    return (a > b) - (a < b)


cdef bytearray _ordered(const Row *rows, Py_ssize_t count):
    """Return rows by producer, each one's in the order in which they are."""
    cdef Py_ssize_t i
    cdef bytearray moved = PyByteArray_FromStringAndSize(NULL, count * sizeof(Row))
    cdef Row *to = <Row *>PyByteArray_AS_STRING(moved)
    cdef uint64_t *keys = <uint64_t *>PyMem_Malloc(count * sizeof(uint64_t))
    if not keys:
        raise MemoryError
    try:
        for i in range(count):
            keys[i] = <uint64_t>rows[i].producer << 32 | <uint64_t>i
        qsort(keys, count, sizeof(uint64_t), _compare)
        for i in range(count):
            to[i] = rows[keys[i] & 0xFFFFFFFF]
    finally:
        PyMem_Free(keys)
    return moved


cdef object _taken(const Row *rows, Py_ssize_t first, Py_ssize_t end):
    """Measure neighbouring rows of one producer."""
    cdef const Row *row
    cdef Py_ssize_t i, chunks = 0
    cdef uint64_t messages = 0, size_bytes = 0
    cdef uint32_t smallest = rows[first].length, largest = rows[first].length
    cdef int64_t first_ms = rows[first].publish_time, last_ms = rows[first].publish_time
    for i in range(first, end):
        row = rows + i
        messages += row.messages
        size_bytes += row.length
        if row.length < smallest:
            smallest = row.length
        if row.length > largest:
            largest = row.length
        if row.publish_time < first_ms:
            first_ms = row.publish_time
        if row.publish_time > last_ms:
            last_ms = row.publish_time
        if row.flags & CHUNK:
            chunks += 1
    return _new_tuple(
        Taken,
        (
            rows[first].producer, first, end - first, messages, size_bytes, first_ms, last_ms,
            chunks, smallest, largest,
        ),
    )


cdef int _stamp(Row *rows, Py_ssize_t count, int64_t index, int64_t now_ms) except -1:
    cdef Py_ssize_t i
    for i in range(count):
        rows[i].first_index = index
        rows[i].broker_time = now_ms
        if index > INT64_MAX - <int64_t>rows[i].messages:
            raise OverflowError("an index beyond 63 bits")
        index += rows[i].messages
    return 0


def stamp(rows, places, int64_t now_ms):
    """Fill in what the topics decided about groups of rows, as `measuring.stamp` does."""
    cdef Py_buffer given
    cdef Py_ssize_t first, count, number
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        number = given.len // sizeof(Row)
        for place in places:
            first, count = place[0], place[1]
            if first < 0 or count < 0 or first > number or count > number - first:
                raise ValueError("a group outside of its run")
            _stamp(<Row *>given.buf + first, count, place[2], now_ms)
    finally:
        PyBuffer_Release(&given)


def stamped(rows, int64_t first_index, int64_t now_ms):
    """Fill in what the topic decides about rows of one producer, and measure them."""
    cdef Py_buffer given
    cdef Py_ssize_t count
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        count = given.len // sizeof(Row)
        if not count:
            raise ValueError("no rows")
        _stamp(<Row *>given.buf, count, first_index, now_ms)
        return _taken(<const Row *>given.buf, 0, count)
    finally:
        PyBuffer_Release(&given)


def rising(rows, int64_t pushed):
    """Return the highest sequence id of rows that are all new, whole and in order; else None."""
    cdef Py_buffer given
    cdef const Row *at
    cdef Py_ssize_t count, i
    cdef int64_t highest = pushed
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
    try:
        at = <const Row *>given.buf
        count = given.len // sizeof(Row)
        for i in range(count):
            if at[i].sequence_id <= highest or at[i].flags & CHUNK:
                return None
            highest = max(at[i].sequence_id, at[i].highest_sequence_id)
        return highest if count else None
    finally:
        PyBuffer_Release(&given)
