# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The journal's bytes in compiled code: a run into its record, a generation into an entry log.

    append ──▶ lay     one pass over the rows, two copies: directory, rows and bodies into the slab
    commit ──▶ finish  the checksums and the header of a record
    flush  ──▶ Pages   rows and bodies into blocks, and the tables behind them

The drawings and the rules stand in `record`, `block` and `pages`: these do the same, to the byte.
Here is only what comes for each entry or each block; no file is opened. Rows are compared with the
bytes that they lie over before they are followed.

The checksum of a log is not computed from its bytes a second time: those of its blocks are joined,
which is multiplication in the field of the polynomial (zlib's crc32_combine goes about it so).
"""

import hashlib
import sys

from cpython cimport array
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from magnetar.broker.run import ROW_SIZE
from magnetar.broker.storage import block, cache, pages, record

cdef extern from "_crc32c.h":
    int magnetar_crc32c_init() noexcept nogil
    uint32_t magnetar_crc32c(uint32_t crc, const void *data, size_t size) noexcept nogil


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


cdef packed struct RecordHeader:
    uint32_t magic
    uint32_t head_crc
    uint16_t kind
    uint16_t version
    uint32_t body_crc
    uint64_t file
    uint64_t salt
    uint64_t number
    uint64_t synced
    uint32_t parts
    uint32_t directory
    uint32_t rows
    uint32_t base
    uint32_t body
    uint32_t pad


cdef packed struct BlockHeader:
    uint32_t magic
    uint32_t head_crc
    uint64_t salt
    uint64_t ledger
    uint64_t first_entry
    uint32_t entries
    uint32_t body
    uint32_t body_crc
    uint32_t pad


cdef packed struct IndexItem:
    uint64_t first
    uint64_t offset
    uint32_t count
    uint32_t size


cdef packed struct Extent:
    uint64_t ledger
    uint64_t first
    uint64_t count
    uint64_t bytes
    int64_t first_index
    int64_t next_index
    int64_t publish_first
    int64_t publish_last
    uint32_t first_block
    uint32_t blocks
    uint32_t index_crc
    uint32_t crc


cdef struct Cached:
    # A record of the generation that is being written, in memory.
    const uint8_t *data
    Py_ssize_t size
    Py_ssize_t rows_at
    Py_ssize_t row_count
    Py_ssize_t body_at
    Py_ssize_t body_size
    int64_t base


cdef struct Span:
    # Bytes of bodies, as they lie in a record; `record` < 0: in a buffer of the caller's.
    const uint8_t *data
    Py_ssize_t size
    Py_ssize_t record


cdef enum:
    CHECKED_FROM = 8
    ALIGNMENT = 8
    VIEW_BYTES_MIN = 16384
    WITHOUT_LOCK = 32768
    MEMORY_BYTES = (1 << 20) + (1 << 19)
    BLOCKS_PER_SLICE = 512
    SPANS_AT_FIRST = 64
    PART_SIZE = 32

cdef uint32_t RECORD_MAGIC = record.MAGIC
cdef uint16_t RECORD_VERSION = record.VERSION
cdef uint32_t BLOCK_MAGIC = block.MAGIC
cdef Py_ssize_t WRITE_BYTES = pages.WRITE_BYTES
cdef int64_t BODY_BYTES_TARGET = block.BODY_BYTES_TARGET
cdef int64_t GAP_SHARE_MAX = block.GAP_SHARE_MAX
cdef int PLACE_SHIFT = cache.PLACE_SHIFT
cdef uint64_t FIRST_ROW_MASK = cache.FIRST_ROW_MASK
cdef object Tables = pages.Tables
cdef object Laid = record.Laid
cdef object _new_tuple = tuple.__new__

if (
    sys.byteorder != "little"
    or sizeof(Row) != ROW_SIZE
    or sizeof(RecordHeader) != record.HEADER_SIZE
    or sizeof(BlockHeader) != block.HEADER_SIZE
    or sizeof(IndexItem) != pages.INDEX_ITEM.size
    or sizeof(Extent) != pages.EXTENT.size
    or CHECKED_FROM != record.CHECKED_FROM
    or CHECKED_FROM != block.CHECKED_FROM
    or ALIGNMENT != record.ALIGNMENT
    or ALIGNMENT != block.ALIGNMENT
    or VIEW_BYTES_MIN != pages.VIEW_BYTES_MIN
    or PART_SIZE != record.PART_SIZE
):
    raise ImportError("built for another version of the journal's formats, or another machine")

magnetar_crc32c_init()


# --- checksums that are joined -----------------------------------------------------------

cdef uint32_t _moved[64]
"""By n: what multiplies a checksum when 2 to the n bits follow."""


cdef uint32_t _times(uint32_t a, uint32_t b) noexcept nogil:
    """Multiply two polynomials modulo that of CRC32-C, the highest power in the lowest bit."""
    cdef uint32_t bit = <uint32_t>1 << 31, product = 0
    while bit:
        if a & bit:
            product ^= b
        b = (b >> 1) ^ <uint32_t>0x82F63B78 if b & 1 else b >> 1
        bit >>= 1
    return product


cdef void _make_moved() noexcept nogil:
    cdef int power
    _moved[0] = <uint32_t>1 << 30
    for power in range(1, 64):
        _moved[power] = _times(_moved[power - 1], _moved[power - 1])


_make_moved()


cdef uint32_t _joined(uint32_t crc, uint32_t then, uint64_t size) noexcept nogil:
    """Return the checksum of bytes and those behind them, given that of each."""
    cdef uint32_t factor = <uint32_t>1 << 31
    cdef int power = 3
    if not crc:
        return then
    while size:
        if size & 1:
            factor = _times(_moved[power], factor)
        size >>= 1
        power += 1
    return _times(factor, crc) ^ then


cdef uint32_t _checksum(uint32_t crc, const uint8_t *data, Py_ssize_t size) noexcept:
    """Compute a checksum; over many bytes, other threads go on meanwhile."""
    if size < WITHOUT_LOCK:
        return magnetar_crc32c(crc, data, size)
    with nogil:
        crc = magnetar_crc32c(crc, data, size)
    return crc


cdef inline Py_ssize_t _padding(Py_ssize_t size) noexcept nogil:
    return -size & (ALIGNMENT - 1)


# --- records -----------------------------------------------------------------------------


def lay(view, Py_ssize_t at, parts, rows, buffer, base):
    """Write a run's record but for its header, as `record.lay` does."""
    cdef Py_buffer out, given, bodies
    cdef Py_ssize_t names_size = 0, directory, body, head, size, count, number = len(parts)
    cdef int64_t low, high
    cdef bytes names = b""
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(buffer, &bodies, PyBUF_SIMPLE)
        try:
            count = given.len // sizeof(Row)
            if not count:
                raise ValueError("a record of no rows")
            _extent_of(<const Row *>given.buf, count, &low, &high)
            low -= <int64_t>base
            high -= <int64_t>base
            if low < 0 or high > bodies.len:
                raise ValueError("a row points outside of its run")
            for part in parts:
                names_size += len(part[4])
            if names_size:
                names = "".join([part[4] for part in parts]).encode("utf-8", "surrogatepass")
            names_size = len(names)
            directory = number * PART_SIZE + names_size + _padding(names_size)
            head = sizeof(RecordHeader) + directory + count * sizeof(Row)
            body = high - low
            size = head + body + _padding(body)
            laid = _new_tuple(Laid, (size, directory, low, body))
            PyObject_GetBuffer(view, &out, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                if at < 0 or out.len - at < size:
                    return laid
                _lay(<uint8_t *>out.buf + at, parts, names, names_size, directory)
                memcpy(
                    <uint8_t *>out.buf + at + sizeof(RecordHeader) + directory,
                    given.buf,
                    count * sizeof(Row),
                )
                memcpy(<uint8_t *>out.buf + at + head, <uint8_t *>bodies.buf + low, body)
                memset(<uint8_t *>out.buf + at + head + body, 0, size - head - body)
                return laid
            finally:
                PyBuffer_Release(&out)
        finally:
            PyBuffer_Release(&bodies)
    finally:
        PyBuffer_Release(&given)


cdef int _lay(uint8_t *at, parts, bytes names, Py_ssize_t names_size, Py_ssize_t directory) except -1:
    """Write the directory of a record."""
    cdef uint64_t *words = <uint64_t *>(at + sizeof(RecordHeader))
    cdef uint8_t *end = at + sizeof(RecordHeader) + directory
    for part in parts:
        words[0] = part[0]
        words[1] = part[1]
        words[2] = <uint64_t>part[2] << 32 | <uint64_t>part[3]
        words[3] = len(part[4])
        words += 4
    memcpy(words, <const char *>names, names_size)
    memset(<uint8_t *>words + names_size, 0, end - <uint8_t *>words - names_size)
    return 0


cdef void _extent_of(const Row *rows, Py_ssize_t count, int64_t *low, int64_t *high) noexcept nogil:
    """Find where the first body begins and the last one ends."""
    cdef Py_ssize_t i
    cdef int64_t first = rows[0].offset, last = 0, end
    for i in range(count):
        if rows[i].offset < first:
            first = rows[i].offset
        end = <int64_t>rows[i].offset + rows[i].length
        if end > last:
            last = end
    low[0] = first
    high[0] = last


def finish(view, kind, file, salt, number, synced, parts, directory, rows, base, body):
    """Write the header of a record whose directory, rows and body are in place."""
    cdef Py_buffer out
    cdef RecordHeader header
    cdef Py_ssize_t head
    header.magic = RECORD_MAGIC
    header.head_crc = 0
    header.kind = kind
    header.version = RECORD_VERSION
    header.body_crc = 0
    header.file = file
    header.salt = salt
    header.number = number
    header.synced = synced
    header.parts = parts
    header.directory = directory
    header.rows = rows
    header.base = base
    header.body = body
    header.pad = 0
    head = <Py_ssize_t>header.directory + <Py_ssize_t>header.rows * sizeof(Row)
    PyObject_GetBuffer(view, &out, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        if out.len < <Py_ssize_t>sizeof(RecordHeader) + head + header.body:
            raise ValueError("a record is larger than its memory")
        if header.body:
            header.body_crc = _checksum(
                0, <uint8_t *>out.buf + sizeof(RecordHeader) + head, header.body
            )
        header.head_crc = magnetar_crc32c(
            0, <uint8_t *>&header + CHECKED_FROM, sizeof(RecordHeader) - CHECKED_FROM
        )
        header.head_crc = _checksum(
            header.head_crc, <uint8_t *>out.buf + sizeof(RecordHeader), head
        )
        memcpy(out.buf, &header, sizeof(RecordHeader))
    finally:
        PyBuffer_Release(&out)


# --- entry logs --------------------------------------------------------------------------


cdef class Views:
    """The records of a generation: where their bytes are, kept in place for as long as this is."""

    cdef Py_buffer *buffers
    cdef Cached *records
    cdef Py_ssize_t count
    cdef list views

    def __cinit__(self, generation):
        cdef Py_ssize_t number
        cdef Cached *cached
        each_of = generation.records
        number = len(each_of)
        self.views = [each.view for each in each_of]
        self.buffers = <Py_buffer *>PyMem_Malloc(max(number, 1) * sizeof(Py_buffer))
        self.records = <Cached *>PyMem_Malloc(max(number, 1) * sizeof(Cached))
        if not self.buffers or not self.records:
            raise MemoryError
        for each in each_of:
            cached = &self.records[self.count]
            cached.rows_at = each.rows_at
            cached.row_count = each.row_count
            cached.body_at = each.body_at
            cached.body_size = each.body_size
            cached.base = each.base
            PyObject_GetBuffer(each.view, &self.buffers[self.count], PyBUF_SIMPLE)
            cached.data = <const uint8_t *>self.buffers[self.count].buf
            cached.size = self.buffers[self.count].len
            self.count += 1
            if (
                cached.rows_at < 0
                or cached.row_count < 0
                or cached.body_at < 0
                or cached.body_size < 0
                or cached.size - cached.body_at < cached.body_size
                or (cached.size - cached.rows_at) // <Py_ssize_t>sizeof(Row) < cached.row_count
            ):
                raise ValueError("a record is larger than its memory")

    def __dealloc__(self):
        self.let_go()
        PyMem_Free(self.buffers)
        PyMem_Free(self.records)

    cdef void let_go(self) noexcept:
        """Let the slabs be used again."""
        while self.count:
            self.count -= 1
            PyBuffer_Release(&self.buffers[self.count])


cdef class Pages:
    """The bytes of one entry log, as `pages.Pages` makes them."""

    cdef uint64_t salt
    cdef uint64_t position
    cdef readonly Py_ssize_t gathered
    cdef uint32_t crc
    cdef object heads
    cdef bytearray new_heads
    cdef bytearray memory
    cdef object memory_view
    cdef uint8_t *memory_at
    cdef Py_ssize_t begun, used
    cdef list pieces
    cdef bytearray index
    cdef bytearray extents
    cdef bint in_extent
    cdef Extent extent
    # The block that is being made: its rows, and where its bodies are.
    cdef bytearray rows
    cdef Py_ssize_t row_count
    cdef bytearray spans
    cdef Py_ssize_t span_count
    cdef int64_t body
    cdef Views views
    cdef int made
    cdef object copied

    def __init__(self, worker, number, salt):
        cdef bytes header
        self.salt = salt
        self.heads = hashlib.sha256()
        self.new_heads = bytearray()
        self.memory = bytearray(MEMORY_BYTES)
        self.memory_view = memoryview(self.memory)
        self.memory_at = <uint8_t *>PyByteArray_AS_STRING(self.memory)
        self.pieces = []
        self.index = bytearray()
        self.extents = bytearray()
        self.rows = bytearray()
        self.spans = bytearray()
        header = pages.header(worker, number, salt)
        self._put(<const uint8_t *><const char *>header, len(header))
        self.crc = magnetar_crc32c(0, <const char *>header, len(header))

    @property
    def size(self):
        """Bytes so far."""
        return self.position + self.gathered

    def fill(self, generation):
        """Add all that a generation holds; yield between slices, or when enough is there to take."""
        cdef array.array firsts, places
        cdef Py_ssize_t chunk, chunks
        cdef uint64_t first, after, end, place
        self.views = Views(generation)
        try:
            tails = generation.tails
            for ledger in sorted(tails):
                tail = tails[ledger]
                firsts, places, end = tail.firsts, tail.places, tail.end
                chunks = len(firsts)
                if len(places) != chunks:
                    raise ValueError("a tail is torn")
                for chunk in range(chunks):
                    first = firsts.data.as_ulonglongs[chunk]
                    place = places.data.as_ulonglongs[chunk]
                    after = firsts.data.as_ulonglongs[chunk + 1] if chunk + 1 < chunks else end
                    self._add_chunk(ledger, place, first, after)
                    if self.made >= BLOCKS_PER_SLICE or self.gathered >= WRITE_BYTES:
                        self.made = 0
                        yield
                if self.row_count:
                    self._add_block(ledger, end)
                    if self.made >= BLOCKS_PER_SLICE or self.gathered >= WRITE_BYTES:
                        self.made = 0
                        yield
        finally:
            self.views.let_go()
            self.views = None

    cdef int _add_chunk(self, uint64_t ledger, uint64_t place, uint64_t first, uint64_t after) except -1:
        """Add neighbouring entries that lie in one record, and every block that they complete."""
        cdef Py_ssize_t number = place >> PLACE_SHIFT, row = place & FIRST_ROW_MASK
        cdef Py_ssize_t count, start = 0, at
        cdef int64_t room, used = 0
        cdef Cached *cached
        cdef const Row *rows
        if number >= self.views.count or after <= first:
            raise ValueError("a tail points outside of its generation")
        cached = &self.views.records[number]
        count = min(after - first, <uint64_t>cached.row_count + 1)
        if row + count > cached.row_count:
            raise ValueError("a tail points outside of its record")
        rows = <const Row *>(cached.data + cached.rows_at) + row
        room = BODY_BYTES_TARGET - self.body
        for at in range(count):
            if at > start and used + rows[at].length > room:
                self._add_rows(number, rows + start, at - start)
                self._add_block(ledger, first + at)
                start, used, room = at, 0, BODY_BYTES_TARGET
            used += rows[at].length
        if count > start:
            self._add_rows(number, rows + start, count - start)
        if self.body >= BODY_BYTES_TARGET:
            self._add_block(ledger, after)
        return 0

    cdef int _add_rows(self, Py_ssize_t number, const Row *rows, Py_ssize_t count) except -1:
        """Add rows to the block, with their bodies in one piece where little lies between them."""
        cdef Cached *cached = &self.views.records[number]
        cdef const uint8_t *bodies = cached.data + cached.body_at
        cdef Py_ssize_t i, had = self.row_count
        cdef int64_t low, high, body_bytes = 0
        cdef Row *placed
        _extent_of(rows, count, &low, &high)
        if low < cached.base or high - cached.base > cached.body_size:
            raise ValueError("a row points outside of its record")
        if len(self.rows) < (had + count) * <Py_ssize_t>sizeof(Row):
            PyByteArray_Resize(self.rows, 2 * (had + count) * sizeof(Row))
        placed = <Row *>PyByteArray_AS_STRING(self.rows) + had
        memcpy(placed, rows, count * sizeof(Row))
        self.row_count += count
        for i in range(count):
            body_bytes += rows[i].length
        if count > 1 and (high - low - body_bytes) * GAP_SHARE_MAX <= body_bytes:
            for i in range(count):
                placed[i].offset = <uint32_t>(rows[i].offset + self.body - low)
            self._add_span(bodies + low - cached.base, high - low, number)
            return 0
        for i in range(count):
            placed[i].offset = <uint32_t>self.body
            self._add_span(bodies + rows[i].offset - cached.base, rows[i].length, number)
        return 0

    cdef int _add_span(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t number) except -1:
        cdef Span *span
        if len(self.spans) < (self.span_count + 1) * <Py_ssize_t>sizeof(Span):
            PyByteArray_Resize(self.spans, (2 * self.span_count + SPANS_AT_FIRST) * sizeof(Span))
        span = <Span *>PyByteArray_AS_STRING(self.spans) + self.span_count
        span.data, span.size, span.record = data, size, number
        self.span_count += 1
        self.body += size
        return 0

    cdef int _add_block(self, uint64_t ledger, uint64_t end) except -1:
        """Write the block whose last entry lies before `end`."""
        cdef const Row *rows = <const Row *>PyByteArray_AS_STRING(self.rows)
        cdef Py_ssize_t i, count = self.row_count
        cdef const Row *last = rows + count - 1
        cdef uint64_t size_bytes = 0
        cdef int64_t publish_first = rows[0].publish_time, publish_last = rows[0].publish_time
        for i in range(count):
            size_bytes += rows[i].length
            if rows[i].publish_time < publish_first:
                publish_first = rows[i].publish_time
            if rows[i].publish_time > publish_last:
                publish_last = rows[i].publish_time
        if last.first_index > INT64_MAX - <int64_t>last.messages:
            raise OverflowError("an index beyond 63 bits")
        self._extend(
            ledger, end, count, size_bytes, rows[0].first_index,
            last.first_index + <int64_t>last.messages, publish_first, publish_last,
        )
        self._write_block(ledger, end - count, <const uint8_t *>rows, count, False, 0)
        self.row_count = self.span_count = 0
        self.body = 0
        self.made += 1
        return 0

    cdef int _extend(
        self, uint64_t ledger, uint64_t end, uint64_t count, uint64_t size_bytes,
        int64_t first_index, int64_t next_index, int64_t publish_first, int64_t publish_last,
    ) except -1:
        """Count a block to its extent."""
        cdef Extent *extent = &self.extent
        cdef uint64_t first = end - count
        if end < count:
            raise ValueError("a block with more entries than its ledger")
        if (
            not self.in_extent
            or ledger != extent.ledger
            or first != extent.first + extent.count
        ):
            self._close_extent()
            self.in_extent = True
            extent.ledger, extent.first, extent.count = ledger, first, count
            extent.bytes = size_bytes
            extent.first_index, extent.next_index = first_index, next_index
            extent.publish_first, extent.publish_last = publish_first, publish_last
            extent.first_block = len(self.index) // sizeof(IndexItem)
            return 0
        extent.count += count
        extent.bytes += size_bytes
        extent.next_index = next_index
        extent.publish_first = min(extent.publish_first, publish_first)
        extent.publish_last = max(extent.publish_last, publish_last)
        return 0

    cdef int _write_block(
        self, uint64_t ledger, uint64_t first, const uint8_t *rows, Py_ssize_t count,
        bint keep_body_crc, uint32_t body_crc,
    ) except -1:
        """Write header, rows, bodies and padding; take note of where they are."""
        cdef BlockHeader header
        cdef IndexItem item
        cdef Py_ssize_t i, rows_size = count * sizeof(Row), padding = _padding(self.body)
        cdef uint32_t crc
        cdef Span *spans = <Span *>PyByteArray_AS_STRING(self.spans)
        cdef uint64_t zeros = 0
        cdef bint direct = rows_size + self.body < 4096
        if self.body > <int64_t>0xFFFFFFFF:
            raise OverflowError("a block beyond 32 bits")
        crc = 0
        for i in range(self.span_count):
            crc = _checksum(crc, spans[i].data, spans[i].size)
        header.magic = BLOCK_MAGIC
        header.salt, header.ledger, header.first_entry = self.salt, ledger, first
        header.entries, header.body = count, self.body
        header.body_crc = body_crc if keep_body_crc else crc
        header.pad = 0
        header.head_crc = magnetar_crc32c(
            0, <uint8_t *>&header + CHECKED_FROM, sizeof(BlockHeader) - CHECKED_FROM
        )
        header.head_crc = _checksum(header.head_crc, rows, rows_size)
        # The checksum of the whole file, of what is known of its parts.
        if direct:
            self.crc = magnetar_crc32c(self.crc, &header, sizeof(BlockHeader))
            self.crc = magnetar_crc32c(self.crc, rows, rows_size)
            for i in range(self.span_count):
                self.crc = magnetar_crc32c(self.crc, spans[i].data, spans[i].size)
        else:
            self.crc = magnetar_crc32c(self.crc, &header, CHECKED_FROM)
            self.crc = _joined(
                self.crc, header.head_crc, sizeof(BlockHeader) - CHECKED_FROM + rows_size
            )
            self.crc = _joined(self.crc, crc, self.body)
        self.crc = magnetar_crc32c(self.crc, &zeros, padding)
        item.first, item.count = first, count
        item.offset = self.position + self.gathered
        item.size = sizeof(BlockHeader) + rows_size + self.body + padding
        _append(self.index, &item, sizeof(IndexItem))
        _append(self.new_heads, &header, sizeof(BlockHeader))
        self._put(<const uint8_t *>&header, sizeof(BlockHeader))
        self._put(rows, rows_size)
        for i in range(self.span_count):
            if spans[i].size >= VIEW_BYTES_MIN:
                self._put_view(&spans[i])
            else:
                self._put(spans[i].data, spans[i].size)
        self._put(<const uint8_t *>&zeros, padding)
        return 0

    def add(self, ledger, rows, bodies, summary, keep_body_crc=None):
        """Add one block; `summary` is that of its entries."""
        cdef Py_buffer given
        cdef Py_buffer held
        cdef Py_ssize_t count
        PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
        try:
            count = given.len // sizeof(Row)
            end, first_index, next_index, size_bytes, publish_first, publish_last = summary
            self._extend(
                ledger, end, count, size_bytes, first_index, next_index, publish_first,
                publish_last,
            )
            # A copied block comes with one body or a few: joined, it is one span.
            joined = b"".join(bodies) if len(bodies) != 1 else bodies[0]
            PyObject_GetBuffer(joined, &held, PyBUF_SIMPLE)
            try:
                self.views = None
                self._add_span(<const uint8_t *>held.buf, held.len, -1)
                self._add_block_of(
                    ledger, end - count, <const uint8_t *>given.buf, count, joined, keep_body_crc
                )
            finally:
                PyBuffer_Release(&held)
                self.span_count = 0
                self.body = 0
        finally:
            PyBuffer_Release(&given)

    cdef int _add_block_of(
        self, uint64_t ledger, uint64_t first, const uint8_t *rows, Py_ssize_t count, joined,
        keep_body_crc,
    ) except -1:
        self.copied = joined
        try:
            if keep_body_crc is None:
                self._write_block(ledger, first, rows, count, False, 0)
            else:
                self._write_block(ledger, first, rows, count, True, keep_body_crc)
        finally:
            self.copied = None
        return 0

    def take(self):
        """Return what is to be written next. It must be written before anything else is added."""
        self._cut()
        pieces, self.pieces = self.pieces, []
        self.heads.update(self.new_heads)
        self.new_heads.clear()
        self.position += self.gathered
        self.begun = self.used = self.gathered = 0
        return pieces

    def end(self):
        """Return what the file ends with: its tables, and the pieces to be written last."""
        cdef uint64_t index_at, extents_at
        cdef uint32_t tables_crc
        self._close_extent()
        index_at = self.position + self.gathered
        extents_at = index_at + len(self.index)
        tables_crc = magnetar_crc32c(0, PyByteArray_AS_STRING(self.index), len(self.index))
        tables_crc = magnetar_crc32c(
            tables_crc, PyByteArray_AS_STRING(self.extents), len(self.extents)
        )
        self.crc = _joined(self.crc, tables_crc, len(self.index) + len(self.extents))
        pieces = self.take()
        index, extents = bytes(self.index), bytes(self.extents)
        pieces += [index, extents]
        self.position += len(index) + len(extents)
        trailer = pages.trailer(
            index_at, extents_at, len(index) // sizeof(IndexItem),
            len(extents) // sizeof(Extent), tables_crc, self.crc, self.heads.digest(), self.salt,
        )
        pieces.append(trailer)
        return Tables(index_at, extents_at, extents, self.position + len(trailer)), pieces

    cdef int _put(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Add a copy of bytes behind those that were added before."""
        self.gathered += size
        if size > MEMORY_BYTES - self.used:
            self._cut()
            self.pieces.append(PyBytes_FromStringAndSize(<const char *>data, size))
            return 0
        memcpy(self.memory_at + self.used, data, size)
        self.used += size
        return 0

    cdef int _put_view(self, Span *span) except -1:
        """Add bytes as they lie."""
        cdef Py_ssize_t at
        self.gathered += span.size
        self._cut()
        if span.record < 0:
            self.pieces.append(self.copied)
            return 0
        at = span.data - self.views.records[span.record].data
        self.pieces.append(self.views.views[span.record][at : at + span.size])
        return 0

    cdef int _cut(self) except -1:
        """Make a piece of what was copied together."""
        if self.used > self.begun:
            self.pieces.append(self.memory_view[self.begun : self.used])
            self.begun = self.used
        return 0

    cdef int _close_extent(self) except -1:
        cdef Extent *extent = &self.extent
        cdef char *index
        if not self.in_extent:
            return 0
        index = PyByteArray_AS_STRING(self.index) + extent.first_block * sizeof(IndexItem)
        extent.blocks = len(self.index) // sizeof(IndexItem) - extent.first_block
        extent.index_crc = magnetar_crc32c(0, index, extent.blocks * sizeof(IndexItem))
        extent.crc = magnetar_crc32c(0, extent, sizeof(Extent) - 4)
        _append(self.extents, extent, sizeof(Extent))
        self.in_extent = False
        return 0


cdef int _append(bytearray to, const void *data, Py_ssize_t size) except -1:
    cdef Py_ssize_t had = len(to)
    PyByteArray_Resize(to, had + size)
    memcpy(PyByteArray_AS_STRING(to) + had, data, size)
    return 0
