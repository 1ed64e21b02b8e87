"""Protobuf fields by hand: varints, tags, lengths.

    field    tag varint | value            tag = field number << 3 | wire type
    value    by wire type: 0 a varint; 1 eight bytes; 2 size varint | bytes; 5 four bytes
    varint   seven bits a byte, lowest first, top bit = more follows
             300 = 0b10_0101100  ->  1_0101100  0_0000010
             -1 as int32 or int64  ->  ten bytes: it is sign-extended to 64 bits first

Source: the protobuf encoding guide. A reader keeps the low 64 bits of a varint and refuses
an eleventh byte. Groups (wire types 3 and 4) are refused: nothing in Pulsar has any. The
hottest loops in `walker` and `replies` write the first step of these functions out.
"""

from magnetar.broker.wire.pulsar.frames import FrameError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
TAG_END = 2**32

_U64_END = 2**64
I64_END = 2**63
_U64_MASK = _U64_END - 1
_VARINT_BYTES_MAX = 10

_SHORT = tuple(
    bytes((value,)) if value < 128 else bytes((value & 127 | 128, value >> 7))
    for value in range(1 << 12)
)
_MORE = tuple(bytes((digit | 128,)) for digit in range(128))
"""Sums of these are four times as fast as building the bytes."""


def encode_varint(value: int) -> bytes:
    """Return a number as a varint. Negative numbers become their 64-bit two's complement."""
    if 0 <= value < 1 << 26:
        if value < 1 << 12:
            return _SHORT[value]
        if value < 1 << 19:
            return _MORE[value & 127] + _SHORT[value >> 7]
        return _MORE[value & 127] + _MORE[value >> 7 & 127] + _SHORT[value >> 14]
    value &= _U64_MASK
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """Return the unsigned 64-bit number at `position`, and the position after it.

    The caller checks that this position is still inside the field's message.

    Raises:
        FrameError: the number has more than ten bytes.
        IndexError: the buffer ends first.
    """
    value = buffer[position]
    position += 1
    if value < 128:
        return value, position
    # Written out for the sizes that ids have; each `- 1` takes back the top bit before it.
    byte = buffer[position]
    value += (byte - 1) << 7
    position += 1
    if byte < 128:
        return value, position
    byte = buffer[position]
    value += (byte - 1) << 14
    position += 1
    if byte < 128:
        return value, position
    for shift in range(21, 7 * _VARINT_BYTES_MAX, 7):
        byte = buffer[position]
        value += (byte - 1) << shift
        position += 1
        if byte < 128:
            return value & _U64_MASK, position
    raise FrameError(f"a varint of more than {_VARINT_BYTES_MAX} bytes")


def signed(value: int) -> int:
    """Read an unsigned 64-bit number as a signed one: all ones is -1."""
    return value - _U64_END if value >= I64_END else value


def int32(value: int) -> int:
    """Read the low 32 bits of a number as an int32 field does."""
    value &= 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value


def read_field(buffer: memoryview, at: int, end: int) -> tuple[int, int, int]:
    """Return tag, value and end of the field at `at`, which must end within `end`.

    The value of a field of bytes is the position where they start. Fixed-size values are
    skipped over: their value is 0.

    Raises:
        FrameError: there is no whole field.
        IndexError: the buffer ends first.
    """
    tag, at = read_varint(buffer, at)
    if not 8 <= tag < TAG_END:
        raise FrameError(f"a field with tag {tag}")
    value = 0
    match tag & 7:
        case 0:
            value, at = read_varint(buffer, at)
        case 2:
            size, value = read_varint(buffer, at)
            at = value + size
        case 1:
            at += 8
        case 5:
            at += 4
        case wire_type:
            raise FrameError(f"a field with wire type {wire_type}")
    if at > end:
        raise FrameError(f"a field that ends {at - end} bytes after its message")
    return tag, value, at
