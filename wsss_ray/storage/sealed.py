"""Seal a checkpoint with its own digest, so that a torn or changed one is told before it is loaded.

A checkpoint is a zip archive, as torch writes it. The seal is the archive's comment: `wsss-ray sha256 ` and the SHA-256 of all
bytes before it. Readers of zip archives, torch among them, pass over a comment.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib

from wsss_ray.core.errors import shown

_TAG = b"wsss-ray sha256 "
_SEAL = len(_TAG) + 64
_END, _END_BYTES = b"PK\5\6", 22  # the last record of an archive without a comment; its last two bytes are the comment's length


def seal(archive: io.BytesIO) -> str:
    """Add the seal to a zip archive in memory, in place: checkpoints are large.

    Args:
        archive: The archive, without a comment.

    Returns:
        The SHA-256 of the sealed archive, as hexadecimal digits.

    Example:
        >>> _ = seal(archive)
        >>> problem_of(archive.getvalue()) is None
        True
    """
    with archive.getbuffer() as data:
        assert bytes(data[-_END_BYTES:]).startswith(_END)
        assert bytes(data[-2:]) == b"\0\0"
        data[-2:] = _SEAL.to_bytes(2, "little")
        digest = hashlib.sha256(data)
    end = _TAG + digest.hexdigest().encode()
    archive.seek(0, io.SEEK_END)
    archive.write(end)
    digest.update(end)
    return digest.hexdigest()


def problem_of(data: bytes) -> str | None:
    """Return what is wrong with a checkpoint; None if nothing is. One of an older version has the archive's checksums only."""
    if data[-_END_BYTES:].startswith(_END):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                torn = archive.testzip()
        except (
            zipfile.BadZipFile,
            EOFError,
            ValueError,
            NotImplementedError,
            RuntimeError,
            OSError,
            OverflowError,
            zlib.error,
        ) as error:
            return f"no checkpoint: {shown(str(error))}"
        return f"{shown(torn)} has another checksum" if torn is not None else None
    end = data[-_SEAL:]
    if not end.startswith(_TAG):
        return "no checkpoint, or not all of one"
    known = hashlib.sha256(memoryview(data)[:-_SEAL]).hexdigest().encode()
    return None if end[len(_TAG) :] == known else "other bytes than were written"
