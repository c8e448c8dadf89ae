"""The decompressed bytes of files, a block at a time."""

from __future__ import annotations

from types import TracebackType
from typing import Any, BinaryIO

from bpe.errors import InputError
from bpe.optional import first_module, require

_STEP = 1 << 18  # bytes to decompress at a time: they stay in the processor's cache until they are joined
_LARGE_STEP = 1 << 20


def _gzip(name: str, file: BinaryIO) -> Any:
    return first_module("isal.igzip", "gzip").GzipFile(fileobj=file, mode="rb")  # isal is three times as fast


def _xz(name: str, file: BinaryIO) -> Any:
    return first_module("lzma").LZMAFile(file)


def _bzip2(name: str, file: BinaryIO) -> Any:
    return first_module("bz2").BZ2File(file)


def _zstd(name: str, file: BinaryIO) -> Any:
    zstd = require(name, "compression.zstd", "backports.zstd")
    # Accept any window size: the default limit rejects files written with `zstd --long=31`.
    return zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: 31})


DECOMPRESSORS = {".gz": _gzip, ".xz": _xz, ".bz2": _bzip2, ".zst": _zstd}


class ByteStream:
    """The decompressed bytes of a file.

    Args:
        name: The name of the file, for messages.
        raw: The open file. The stream closes it.
        suffix: The suffix of a compressed format, or empty.
        size: Bytes of `raw`, if known.

    Attributes:
        offset: How many decompressed bytes have been read.
    """

    def __init__(self, name: str, raw: BinaryIO, suffix: str = "", size: int | None = None) -> None:
        self.name = name
        self.offset: int = 0
        # A read allocates as many bytes as it asks for, so it should ask for few more than the file has.
        self._step = _STEP if suffix else _LARGE_STEP if size is None else size + 1
        self._raw: BinaryIO = raw
        self._file: BinaryIO = raw
        if suffix:
            try:
                self._file = DECOMPRESSORS[suffix](name, raw)
            except BaseException:
                raw.close()
                raise

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._raw.close()

    @property
    def read_so_far(self) -> int:
        """Bytes of the file that have been read, as stored on disk."""
        return self.offset if self._file is self._raw else self._raw.tell()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or all remaining bytes if `size` is negative.

        Fewer bytes are returned only at the end of the file.

        Raises:
            InputError: When the archive is damaged, or a remote store fails.
            OSError: When the operating system cannot read the file.
        """
        blocks = []
        left = size
        while left:
            block = self._next(left if left < 0 else min(left, self._step))
            if not block:
                break
            blocks.append(block)
            left = max(left - len(block), -1)
        self.offset += sum(map(len, blocks))
        return b"".join(blocks)

    def _next(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:  # each decompressor and each store raises its own
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
                raise  # an error of the operating system, not of the file's content
            problem = "cannot be read" if self._file is self._raw else "the archive is damaged"
            raise InputError(f"{self.name}: {problem} ({' '.join(str(error).split())})") from error

    def skip(self, offset: int) -> None:
        """Move forward to an offset in the decompressed bytes.

        Raises:
            InputError: When the file ends before it.
        """
        if self._file is self._raw and self._raw.seekable():
            self._raw.seek(offset)
            self.offset = offset
        while self.offset < offset and self.read(min(offset - self.offset, _STEP)):
            pass
        if self.offset < offset:
            raise InputError(
                f"{self.name}: the file ends at byte {self.offset}, before byte {offset}, where the interrupted run"
                " stopped; restore the file to resume"
            )
