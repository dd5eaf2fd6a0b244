"""Opens data files, compressed ones too, without trusting what they expand to."""

from __future__ import annotations

import gzip
import io
import lzma
from pathlib import Path
from typing import IO, Any, cast

from truing.core.bounds import FREE_EXPANDED_BYTES, MAX_EXPANSION, MAX_XZ_MEMORY
from truing.core.errors import DataError


def open_decompressed(path: Path) -> IO[bytes]:
    """Opens a file for reading; decompresses .gz and .xz, up to a bound (`MAX_EXPANSION`)."""
    if path.suffix.lower() == ".gz":
        return _bound(path, cast("IO[bytes]", gzip.open(path, "rb")))
    if path.suffix.lower() == ".xz":
        return _bound(path, cast("IO[bytes]", _XzFile(path)))
    return path.open("rb")


def _bound(path: Path, stream: IO[bytes]) -> IO[bytes]:
    raw = _CountedBytes(stream, path)
    return cast("IO[bytes]", io.BufferedReader(raw, buffer_size=1 << 18))


class _XzFile(io.RawIOBase):
    """A decompressed .xz file. Unlike `lzma.open` it bounds the memory of the decoder.

    Raises LZMAError for a damaged file and for one that needs more than `MAX_XZ_MEMORY`, EOFError
    for one that is cut off.
    """

    _CHUNK_BYTES = 1 << 16

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._decoder = self._new_decoder()
        # Compressed bytes that were read past the end of a stream: an .xz file may have several.
        self._unread = b""

    @staticmethod
    def _new_decoder() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoder.eof or self._start_next_stream():
            compressed = self._unread
            if not compressed and self._decoder.needs_input:
                compressed = self._file.read(self._CHUNK_BYTES)
                if not compressed:
                    raise EOFError("the file ends before its end-of-stream marker")
            self._unread = b""
            data = self._decoder.decompress(compressed, max_length=len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _start_next_stream(self) -> bool:
        """Starts the decoder of the next stream of the file; returns whether there is one."""
        next_bytes = self._decoder.unused_data.lstrip(b"\0")  # streams may be padded with zeros
        while not next_bytes and (chunk := self._file.read(self._CHUNK_BYTES)):
            next_bytes = chunk.lstrip(b"\0")
        if not next_bytes:
            return False
        self._decoder, self._unread = self._new_decoder(), next_bytes
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class _CountedBytes(io.RawIOBase):
    """A decompressed file; raises DataError if it has far more bytes than text compresses to.

    A file of a megabyte can hold a gigabyte of zeros, which no disk and no memory has to take.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._count = 0
        size = path.stat().st_size
        self._max_count = max(FREE_EXPANDED_BYTES, MAX_EXPANSION * size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._count > self._max_count:
            raise DataError(
                f"{self._path}: expands to more than {self._max_count / 2**20:,.0f} MiB, over "
                f"{MAX_EXPANSION} times its size; if it is no attack, unpack it and name that file"
            )
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
