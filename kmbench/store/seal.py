"""A checksum of the whole file in the footer of every Parquet file that kmbench writes.

Readers of Parquet differ in what they do about damage: some end the process over one byte.  So a
file is checked before it is read.  The checksum is a key of the footer's metadata, eight hex digits
of the CRC-32 of the file with zeros in their place, as in the header of an IP packet; other readers
pass over it.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Damaged", "sealed", "unseal"]

KEY = b"kmbench.crc32"
DIGITS = b"00000000"
# Thrift's compact protocol: a KeyValue is two strings, each a field header, a length and its bytes
STRING = b"\x18"
MAGIC = b"PAR1"


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
        file.seek(0, 2)
        if file.tell() < 12:
            raise Damaged
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            size = int.from_bytes(data[-8:-4], "little")
            if data[:4] != MAGIC or data[-4:] != MAGIC or size > len(data) - 12:
                raise Damaged
            footer = len(data) - 8 - size
            digits = _value(data, KEY, footer)
            if digits is None or data[slice(*digits)] == DIGITS:
                return None
            start, stop = digits
            with memoryview(data) as whole:
                found = zlib.crc32(whole[stop:], zlib.crc32(DIGITS, zlib.crc32(whole[:start])))
            if data[start:stop] != b"%08x" % found:
                raise Damaged
            text = _value(data, key, footer)
            return b"" if text is None else data[slice(*text)]


def _value(data: mmap.mmap, key: bytes, footer: int) -> tuple[int, int] | None:
    """Where the short text of `key` is in the metadata that begins at `footer`."""
    at = data.rfind(_entry(key), footer)
    if at < 0:
        return None
    at += len(_entry(key))
    return at + 1, at + 1 + data[at]
