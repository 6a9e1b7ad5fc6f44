"""Offsets of structure members, read from the kernel's own type information.

Format: Linux include/uapi/linux/btf.h; the kernel publishes its types in
``/sys/kernel/btf/vmlinux``.
"""

import mmap
import struct
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_STRUCT, _UNION, _ENUM, _FUNC = 4, 5, 6, 12
_MODIFIERS = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag: ref in `size`
# bytes after the 12-byte header of a type: fixed, and per element of its list
_EXTRA = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0),
          15: (0, 12), 17: (4, 0), 19: (0, 12)}  # fmt: skip


class Types:
    """Structures of one BTF blob."""

    def __init__(self, blob: bytes):
        """Raises ValueError when `blob` is not BTF."""
        if len(blob) < 24:
            raise ValueError("no BTF header")
        header = struct.unpack_from("<HBBIIIII", blob)
        magic, _, _, head, type_at, type_len, str_at, str_len = header
        if magic != _MAGIC:
            raise ValueError("not BTF of a little-endian kernel")
        self._blob = blob
        self._strings = blob[head + str_at : head + str_at + str_len]
        self._at = [0]  # offset of each type; ids begin with 1
        self._by_name: dict[str, int] = {}
        self._functions: dict[str, int] = {}
        self._enums: list[int] = []
        at, end = head + type_at, head + type_at + type_len
        while at < end:
            name, info, _ = struct.unpack_from("<III", blob, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind == _STRUCT and name:
                self._by_name.setdefault(self._text(name), len(self._at))
            elif kind == _ENUM:
                self._enums.append(at)
            elif kind == _FUNC:
                self._functions[self._text(name)] = len(self._at)
            self._at.append(at)
            fixed, each = _EXTRA.get(kind, (0, 0))
            at += 12 + fixed + each * count

    def _text(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def _members(self, row: int):
        """(name, type, bit offset, bits) of a structure; bits 0: no bit field."""
        at = self._at[row]
        _, info, _ = struct.unpack_from("<III", self._blob, at)
        for index in range(info & 0xFFFF):
            name, kind, offset = struct.unpack_from("<III", self._blob, at + 12 + 12 * index)
            if info >> 31:
                yield self._text(name), kind, offset & 0xFFFFFF, offset >> 24
            else:
                yield self._text(name), kind, offset, 0

    def _resolve(self, row: int) -> tuple[int, int]:
        """Type row behind typedefs and qualifiers, and its kind."""
        while True:
            _, info, size = struct.unpack_from("<III", self._blob, self._at[row])
            kind = info >> 24 & 0x1F
            if kind not in _MODIFIERS:
                return row, kind
            row = size

    def size(self, name: str) -> int:
        """Bytes of structure `name`.  Raises KeyError when the kernel has none."""
        return struct.unpack_from("<III", self._blob, self._at[self._by_name[name]])[2]

    def function(self, name: str) -> int:
        """BTF id of a kernel function, 0 when there is none."""
        return self._functions.get(name, 0)

    def enumerator(self, name: str) -> int:
        """Value of a constant of any enum.  Raises KeyError when the kernel has none."""
        for at in self._enums:
            _, info, _ = struct.unpack_from("<III", self._blob, at)
            for row in range(info & 0xFFFF):
                text, value = struct.unpack_from("<Ii", self._blob, at + 12 + 8 * row)
                if self._text(text) == name:
                    return value
        raise KeyError(name)

    def has(self, name: str, member: str) -> bool:
        """Whether structure `name` exists and has `member`."""
        return name in self._by_name and self._find(self._by_name[name], member) is not None

    def bits(self, name: str, member: str) -> tuple[int, int]:
        """Bit offset of a member, and its bits when it is a bit field (else 0).

        Members of unnamed structures and unions inside count.  Raises KeyError.
        """
        found = self._find(self._by_name[name], member)
        if found is None:
            raise KeyError(f"{name}.{member}")
        return found

    def offset(self, name: str, member: str) -> int:
        """Byte offset of a member.  Raises KeyError."""
        return self.bits(name, member)[0] // 8

    def _find(self, row: int, member: str) -> tuple[int, int] | None:
        for name, kind, offset, bits in self._members(row):
            if name == member:
                return offset, bits
            if not name:
                inner, sort = self._resolve(kind)
                if sort in (_STRUCT, _UNION):
                    found = self._find(inner, member)
                    if found is not None:
                        return found[0] + offset, found[1]
        return None


def kernel_types(path: Path = VMLINUX) -> Types:
    """Types of the running kernel.  Raises OSError or ValueError."""
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                return Types(view[:])
        except (OSError, ValueError):
            return Types(file.read())
