"""A checksum of the whole file in the footer of every Parquet file that kmbench writes.

Readers of Parquet differ in what they do about damage: some end the process over one byte.  So a
file is checked before it is read.  The checksum is a key of the footer's metadata, eight hex digits
of the CRC-32 of the file with zeros in their place, as in the header of an IP packet; other readers
pass over it.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Damaged", "sealed", "unseal"]

KEY = b"kmbench.crc32"
DIGITS = b"00000000"
# Thrift's compact protocol: a KeyValue is two strings, each a field header, a length and its bytes
STRING = b"\x18"
MAGIC = b"PAR1"
CHUNK = 1 << 20


class Damaged(Exception):
    """A file that is not what was written."""


def _entry(key: bytes) -> bytes:
    return STRING + bytes([len(key)]) + key + STRING


def sealed(content: pa.Table, **options: object) -> bytes:
    """`content` as the bytes of a Parquet file with its checksum; `options` of ``write_table``."""
    words = {**(content.schema.metadata or {}), KEY: DIGITS}
    sink = pa.BufferOutputStream()
    pq.write_table(content.replace_schema_metadata(words), sink, **options)
    data = bytearray(sink.getvalue())
    at = data.rindex(_entry(KEY)) + len(_entry(KEY)) + 1
    data[at : at + len(DIGITS)] = b"%08x" % zlib.crc32(data)
    return bytes(data)


def unseal(path: Path, key: bytes) -> bytes | None:
    """Check the file and return the text of `key` in its metadata, None if it has no checksum.

    A table that was read and written again by others takes the key along, with zeros: it has none.
    Raises Damaged when it has one that is not its own, and OSError.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise Damaged
        file.seek(0)
        head = file.read(4)
        file.seek(size - 8)
        tail = file.read()
        footer = size - 8 - int.from_bytes(tail[:4], "little")
        if head != MAGIC or tail[4:] != MAGIC or footer < 4:
            raise Damaged
        file.seek(footer)
        metadata = file.read(size - 8 - footer)
        at, digits = _value(metadata, KEY)
        if digits in (None, DIGITS):
            return None
        found = _checksum(file, 0, footer + at)
        found = _checksum(file, footer + at + len(DIGITS), size, zlib.crc32(DIGITS, found))
        if digits != b"%08x" % found:
            raise Damaged
        return _value(metadata, key)[1] or b""


def _checksum(file: BinaryIO, start: int, stop: int, before: int = 0) -> int:
    """CRC-32 of a part of a file, in bounded memory; `before` is that of what precedes it."""
    file.seek(start)
    while start < stop:
        part = file.read(min(CHUNK, stop - start))
        if not part:
            raise Damaged
        before = zlib.crc32(part, before)
        start += len(part)
    return before


def _value(metadata: bytes, key: bytes) -> tuple[int, bytes | None]:
    """Where the short text of `key` is in a footer, and the text; None if it is not there."""
    at = metadata.rfind(_entry(key))
    if at < 0 or (at := at + len(_entry(key))) >= len(metadata):
        return 0, None
    return at + 1, metadata[at + 1 : at + 1 + metadata[at]]
