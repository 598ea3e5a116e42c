"""Inflates one deflate stream into a buffer of known size, with its CRC32; fast where runs are long.

A label map is mostly runs, and zlib spends its time on them copying byte by byte, on the checksum of
zeros, and on carrying blocks through Python. Here a run is written eight bytes at a time into the caller's
buffer, and the checksum of a stretch of zeros is one step of arithmetic whatever its length. Anything
unusual ends in "no answer": `inflate.py` then leaves the file to zlib, which says what is wrong with it.

Importing this module loads numba and compiles, from its cache after the first time.

Source: RFC 1951 (deflate), RFC 1952 section 8 (the CRC); slicing by 8: Kounavis & Berry 2008.
"""

# Compiled functions are typed by their signatures.
# ruff: noqa: ANN001, ANN201, ANN202
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, njit, types, uint8, uint32, uint64, void
from numba.extending import intrinsic

BYTES = types.Array(uint8, 1, "C")
SOURCE = types.Array(uint8, 1, "C", readonly=True)
ENTRIES = types.Array(uint32, 1, "C")
TABLE = types.Array(uint32, 2, "C", readonly=True)

PADDING = 16
"""Zero bytes behind the stream, so that eight bytes can be loaded wherever it stands."""

CHUNK = 1 << 16
"""Bytes after which the checksum follows: what was written is then still in the cache."""

LONGEST = 15
END_OF_BLOCK = 256


def _crc_tables() -> np.ndarray:
    """Return 8 x 256 words: what a byte does to the register when 0..7 bytes follow it."""
    tables = np.zeros((8, 256), dtype=np.uint32)
    word = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        word = np.where(word & 1, (word >> 1) ^ np.uint32(0xEDB88320), word >> 1).astype(np.uint32)
    tables[0] = word
    for index in range(1, 8):
        tables[index] = tables[0][tables[index - 1] & 0xFF] ^ (tables[index - 1] >> 8)
    return tables


def _zero_operators(tables: np.ndarray) -> np.ndarray:
    """Return 32 x 32 words: row k holds what each bit of the register becomes after 64 * 2^k zero bytes."""
    column = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(64):
        column = tables[0][column & 0xFF] ^ (column >> 8)
    operators = np.zeros((32, 32), dtype=np.uint32)
    for step in range(32):
        operators[step] = column
        bits = (column[:, None] >> np.arange(32, dtype=np.uint32)) & 1
        column = np.bitwise_xor.reduce(np.where(bits == 1, column[None, :], np.uint32(0)), axis=1)
    return operators


CRC_TABLES = _crc_tables()
ZERO_OPERATORS = _zero_operators(CRC_TABLES)
CRC_TABLES.flags.writeable = ZERO_OPERATORS.flags.writeable = False

_LENGTHS = [(3 + i, 0) for i in range(8)]
_LENGTHS += [(3 + ((4 + i % 4) << (i // 4 - 1)), i // 4 - 1) for i in range(8, 28)] + [(258, 0)]
_DISTANCES = [(1 + i, 0) for i in range(4)]
_DISTANCES += [(1 + ((2 + i % 2) << (i // 2 - 1)), i // 2 - 1) for i in range(4, 30)]

LENGTH_BASE, LENGTH_BITS = (np.array(column, dtype=np.int64) for column in zip(*_LENGTHS, strict=True))
DISTANCE_BASE, DISTANCE_BITS = (np.array(column, dtype=np.int64) for column in zip(*_DISTANCES, strict=True))
FIXED_LENGTHS = np.repeat(np.array([8, 9, 7, 8, 5], dtype=np.uint8), [144, 112, 24, 8, 32])
CODE_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], dtype=np.int64)


def _compiled(signature: Any) -> Any:
    """Return a decorator that compiles at once, from the cache where one can be kept."""

    def decorate(function: Any) -> Any:
        try:
            return njit(signature, cache=True, nogil=True)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return njit(signature, nogil=True)(function)

    return decorate


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    start = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [offset])
    return builder.bitcast(start, ir.IntType(64).as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return the 8 bytes of a uint8 array from a byte offset on, little-endian."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(_address(context, builder, signature.args[0], *arguments))
        word.align = 1
        return word

    return uint64(array, offset), generate


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, word: Any) -> Any:
    """Write 8 bytes into a uint8 array from a byte offset on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], place).align = 1
        return context.get_dummy_value()

    return void(array, offset, word), generate


@_compiled(int64(SOURCE, int64, int64, ENTRIES))
def build(lengths, start, count, table):
    """Fill a decoding table (entry = symbol << 4 | code length); return its index bits, or -1.

    A code must be complete; the one exception is deflate's own, a single code of one bit. With no code at
    all every entry is 0, which no lookup accepts.
    """
    counts = np.zeros(LONGEST + 1, dtype=np.int64)
    for symbol in range(count):
        counts[lengths[start + symbol]] += 1
    bits, used, room = 1, 0, 1
    for length in range(1, LONGEST + 1):
        room = 2 * room - counts[length]
        used += counts[length]
        if room < 0:
            return -1
        if counts[length]:
            bits = length
    if room > 0 and not (used == 0 or (used == 1 and counts[1] == 1)):
        return -1
    starts = np.zeros(LONGEST + 2, dtype=np.int64)
    for length in range(1, LONGEST + 1):
        starts[length + 1] = (starts[length] + counts[length]) << 1
    size = 1 << bits
    for index in range(size):
        table[index] = 0
    for symbol in range(count):
        length = int64(lengths[start + symbol])
        if length == 0:
            continue
        code, reverse = starts[length], 0
        starts[length] += 1
        for _ in range(length):
            reverse = reverse << 1 | code & 1
            code >>= 1
        entry = uint32(symbol << 4 | length)
        for index in range(reverse, size, 1 << length):
            table[index] = entry
    return bits


@_compiled(uint32(BYTES, int64, int64, uint32, TABLE, TABLE))
def checksum(data, start, stop, register, tables, operators):
    """Take the bytes from start to stop into a CRC register; zeros cost a look, not a lookup."""
    at = start
    while at < stop:
        begin = at
        while at + 64 <= stop:
            any_bit = load(data, at) | load(data, at + 8) | load(data, at + 16) | load(data, at + 24)
            any_bit |= load(data, at + 32) | load(data, at + 40) | load(data, at + 48) | load(data, at + 56)
            if any_bit:
                break
            at += 64
        left = (at - begin) >> 6
        step = 0
        while left:
            if left & 1:
                turned = uint32(0)
                for bit in range(32):
                    if (register >> uint32(bit)) & uint32(1):
                        turned ^= operators[step, bit]
                register = turned
            left >>= 1
            step += 1
        words = min(stop, at + 64)
        while at + 8 <= words:
            word = load(data, at) ^ uint64(register)
            register = (
                tables[7, word & uint64(255)]
                ^ tables[6, (word >> uint64(8)) & uint64(255)]
                ^ tables[5, (word >> uint64(16)) & uint64(255)]
                ^ tables[4, (word >> uint64(24)) & uint64(255)]
                ^ tables[3, (word >> uint64(32)) & uint64(255)]
                ^ tables[2, (word >> uint64(40)) & uint64(255)]
                ^ tables[1, (word >> uint64(48)) & uint64(255)]
                ^ tables[0, word >> uint64(56)]
            )
            at += 8
        while at < words:
            register = tables[0, (register ^ uint32(data[at])) & uint32(255)] ^ (register >> uint32(8))
            at += 1
    return register


@njit(inline="always")
def _copy(out, at, distance, length):
    """Repeat what stands `distance` before; up to seven bytes behind the end may be written too."""
    if distance >= 8:
        for offset in range(at, at + length, 8):
            store(out, offset, load(out, offset - distance))
        return
    if distance == 1 or distance == 2 or distance == 4:
        word = uint64(out[at - 1]) << uint64(56)
        for back in range(2, 9):
            word |= uint64(out[at - 1 - (back - 1) % distance]) << uint64(64 - 8 * back)
        for offset in range(at, at + length, 8):
            store(out, offset, word)
        return
    for offset in range(at, at + length):
        out[offset] = out[offset - distance]


@_compiled(types.UniTuple(int64, 2)(SOURCE, int64, BYTES, TABLE, TABLE))
def inflate(source, start, out, tables, operators):
    """Inflate a raw deflate stream that fills `out` exactly.

    Args:
        source: the file's bytes and `PADDING` zeros.
        start: where the stream begins.
        out: buffer of the size that is expected, no more and no less.
        tables: `CRC_TABLES`.
        operators: `ZERO_OPERATORS`.

    Returns:
        The offset behind the stream and the CRC32 of `out`; (-1, 0) for everything that is not a sound
        stream of that size.
    """
    end, size = len(source) - PADDING, len(out)
    literals = np.empty(1 << LONGEST, dtype=np.uint32)
    distances = np.empty(1 << LONGEST, dtype=np.uint32)
    lengths = np.zeros(320, dtype=np.uint8)
    register, checked = uint32(0xFFFFFFFF), 0
    word, held = uint64(0), 0  # bits not used yet, the lowest first, and how many are sure
    place, at, last = start, 0, False
    while not last:
        if place > end:
            return -1, 0
        word |= load(source, place) << uint64(held)
        place += (63 - held) >> 3
        held |= 56
        last = (word & uint64(1)) != uint64(0)
        kind = int64((word >> uint64(1)) & uint64(3))
        word >>= uint64(3)
        held -= 3
        if kind == 0:
            place -= held >> 3
            word, held = uint64(0), 0
            if place + 4 > end:
                return -1, 0
            count = int64(source[place]) | int64(source[place + 1]) << 8
            inverse = int64(source[place + 2]) | int64(source[place + 3]) << 8
            place += 4
            if count ^ inverse != 0xFFFF or place + count > end or at + count > size:
                return -1, 0
            for offset in range(count):
                out[at + offset] = source[place + offset]
            place += count
            at += count
            continue
        if kind == 3:
            return -1, 0
        if kind == 1:
            n_literals, n_distances = 288, 32
            for index in range(320):
                lengths[index] = FIXED_LENGTHS[index]
        else:
            n_literals = 257 + int64(word & uint64(31))
            n_distances = 1 + int64((word >> uint64(5)) & uint64(31))
            n_codes = 4 + int64((word >> uint64(10)) & uint64(15))
            word >>= uint64(14)
            held -= 14
            if n_literals > 286 or n_distances > 30:
                return -1, 0
            for index in range(19):
                lengths[index] = 0
            for index in range(n_codes):
                if held < 3:
                    if place > end:
                        return -1, 0
                    word |= load(source, place) << uint64(held)
                    place += (63 - held) >> 3
                    held |= 56
                lengths[CODE_ORDER[index]] = word & uint64(7)
                word >>= uint64(3)
                held -= 3
            bits = build(lengths, 0, 19, literals)
            if bits < 0:
                return -1, 0
            index, total = 0, n_literals + n_distances
            while index < total:
                if place > end:
                    return -1, 0
                word |= load(source, place) << uint64(held)
                place += (63 - held) >> 3
                held |= 56
                entry = int64(literals[word & uint64((1 << bits) - 1)])
                if entry == 0:
                    return -1, 0
                word >>= uint64(entry & 15)
                held -= entry & 15
                symbol = entry >> 4
                if symbol < 16:
                    lengths[index] = symbol
                    index += 1
                    continue
                value, extra, least = 0, 7, 11
                if symbol == 16:
                    if index == 0:
                        return -1, 0
                    value, extra, least = int64(lengths[index - 1]), 2, 3
                elif symbol == 17:
                    extra, least = 3, 3
                repeat = least + int64(word & uint64((1 << extra) - 1))
                word >>= uint64(extra)
                held -= extra
                if index + repeat > total:
                    return -1, 0
                for _ in range(repeat):
                    lengths[index] = value
                    index += 1
            if lengths[END_OF_BLOCK] == 0:
                return -1, 0
        literal_bits = build(lengths, 0, n_literals, literals)
        distance_bits = build(lengths, n_literals, n_distances, distances)
        if literal_bits < 0 or distance_bits < 0:
            return -1, 0
        literal_mask = uint64((1 << literal_bits) - 1)
        distance_mask = uint64((1 << distance_bits) - 1)
        while True:
            if held < 48:  # a length and a distance with their extra bits
                if place > end:
                    return -1, 0
                word |= load(source, place) << uint64(held)
                place += (63 - held) >> 3
                held |= 56
            entry = int64(literals[word & literal_mask])
            if entry == 0:
                return -1, 0
            word >>= uint64(entry & 15)
            held -= entry & 15
            symbol = entry >> 4
            if symbol < END_OF_BLOCK:
                if at == size:
                    return -1, 0
                out[at] = symbol
                at += 1
                continue
            if symbol == END_OF_BLOCK:
                break
            if symbol > 285:
                return -1, 0
            extra = LENGTH_BITS[symbol - 257]
            length = LENGTH_BASE[symbol - 257] + int64(word & uint64((1 << extra) - 1))
            word >>= uint64(extra)
            held -= extra
            entry = int64(distances[word & distance_mask])
            symbol = entry >> 4
            if entry == 0 or symbol > 29:
                return -1, 0
            word >>= uint64(entry & 15)
            held -= entry & 15
            extra = DISTANCE_BITS[symbol]
            distance = DISTANCE_BASE[symbol] + int64(word & uint64((1 << extra) - 1))
            word >>= uint64(extra)
            held -= extra
            if distance > at or at + length > size:
                return -1, 0
            if at + length + 8 <= size:
                _copy(out, at, distance, length)
            else:
                for offset in range(at, at + length):
                    out[offset] = out[offset - distance]
            at += length
            if at - checked >= CHUNK:
                stop = at - (at - checked) % 64
                register = checksum(out, checked, stop, register, tables, operators)
                checked = stop
    place -= held >> 3
    if place > end or at != size:
        return -1, 0
    register = checksum(out, checked, at, register, tables, operators)
    return place, int64(register ^ uint32(0xFFFFFFFF))
