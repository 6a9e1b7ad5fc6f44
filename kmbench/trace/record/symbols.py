"""Names of kernel addresses."""

from bisect import bisect_right


class Symbols:
    """Functions of a kernel, from its /proc/kallsyms."""

    def __init__(self, text: str):
        """text: lines "address type name"."""
        rows = (line.split()[:3] for line in text.splitlines())
        found = sorted((int(row[0], 16), row[2]) for row in rows if row[1] in "tTwW")
        self._at = [at for at, _ in found]
        self._names = [name for _, name in found]

    def name(self, address: int) -> str:
        """``function+0xoffset``, or the address where no function is known."""
        at = bisect_right(self._at, address) - 1
        if at < 0 or not self._at[at]:
            return hex(address)
        return f"{self._names[at]}+{address - self._at[at]:#x}"
