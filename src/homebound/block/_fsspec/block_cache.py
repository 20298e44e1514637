"""Blocks of a remote file in memory, at most so many; the least recently used goes first."""

from __future__ import annotations

from ..._os.guard import new_guard


class BlockCache:
    """Blocks by number. Any thread; the guard is held for a few lines."""

    def __init__(self, most: int) -> None:
        self.most: int = most
        self._blocks: dict[int, bytes] = {}  # the least recently used first
        self._guard = new_guard()

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, number: int) -> bytes | None:
        """Return a block that is here."""
        with self._guard:
            block = self._blocks.pop(number, None)
            if block is not None:
                self._blocks[number] = block
            return block

    def __contains__(self, number: int) -> bool:
        return number in self._blocks

    def put(self, number: int, block: bytes) -> None:
        """Keep a block."""
        with self._guard:
            self._blocks.pop(number, None)
            if len(self._blocks) >= self.most:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = block

    def clear(self) -> None:
        """Keep none."""
        with self._guard:
            self._blocks.clear()
