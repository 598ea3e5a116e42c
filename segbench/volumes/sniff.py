"""Says in words what a file that is not a volume looks like, so that the refusal helps."""

from __future__ import annotations

_BINARY_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip data"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"(\xb5/\xfd", "zstd data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF document"),
    (b"NRRD000", "an NRRD volume"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
)


def describe(head: bytes) -> str:
    """What the first bytes of a file look like, as a noun phrase: "an HTML page", "a git-lfs pointer".

    Args:
        head: the first bytes; 512 are enough.
    """
    for start, name in _BINARY_STARTS:
        if head.startswith(start):
            return name
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return (
            "the header of an ANALYZE or NIfTI .hdr/.img pair"
            if head[344:347] in (b"ni1", b"\0\0\0")
            else ("a NIfTI-1 header with a damaged magic string")
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer (the file itself was never fetched: git lfs pull)"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page (often the log-in or error page of a download)"
    if text.startswith(b"<?xml"):
        return "an XML document" + (" (an error answer of a download)" if b"<error" in text else "")
    if text.startswith((b"objecttype", b"ndims")):
        return "a MetaImage header (.mha, .mhd)"
    if text.startswith((b"{", b"[")):
        return "a JSON document"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:200]):
        return "a text file"
    return "unknown binary data"
