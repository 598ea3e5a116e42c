"""Take the viewer asset of the HTML report from NiiVue's npm tarball; for developers, never run by segbench.

    python scripts/update_niivue.py niivue-0.69.0.tgz
    python scripts/update_niivue.py --version 0.69.0        (fetches the tarball from the npm registry)

Takes `dist/niivue.umd.js` out of the tarball unmodified, compresses it with a fixed time stamp and writes its
SHA-256 beside it, so that the same tarball gives the same bytes. `assets/THIRD_PARTY.md` carries the licences
and is written by hand: the tarball has no licence file.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

MEMBER = "package/dist/niivue.umd.js"
ASSETS = Path(__file__).resolve().parent.parent / "segbench" / "report" / "write" / "assets"
REGISTRY = "https://registry.npmjs.org/@niivue/niivue/-/niivue-{version}.tgz"
FORBIDDEN = (b"</script", b"eval(", b"new Function(")  # must run as an inline script without unsafe-eval


def extract(tarball: bytes) -> bytes:
    """The one file of the tarball, unmodified."""
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        stream = archive.extractfile(MEMBER)
        if stream is None:
            sys.exit(f"{MEMBER} is not a file of the tarball")
        return stream.read()


def compress(data: bytes) -> bytes:
    """Gzip at the highest level, without time or name."""
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=0) as packed:
        packed.write(data)
    return stream.getvalue()


def version_of(path: Path) -> str:
    """0.69.0 from niivue-0.69.0.tgz."""
    return path.name.removeprefix("niivue-").removesuffix(".tgz")


def main() -> None:
    """Write the asset and its hash."""
    parser = argparse.ArgumentParser(description="Update the viewer asset of the HTML report.")
    parser.add_argument("tarball", nargs="?", type=Path, help="niivue-<version>.tgz")
    parser.add_argument("--version", help="fetch this version instead")
    given = parser.parse_args()
    if given.version:
        version = given.version
        with urllib.request.urlopen(REGISTRY.format(version=version)) as answer:
            tarball = answer.read()
    elif given.tarball:
        version, tarball = version_of(given.tarball), given.tarball.read_bytes()
    else:
        parser.error("name a tarball or --version")
    data = extract(tarball)
    found = [word.decode() for word in FORBIDDEN if word in data]
    if found:
        sys.exit(f"cannot run inline: the file contains {', '.join(found)}")
    name = f"niivue-{version}.umd.js.gz"
    packed = compress(data)
    for old in ASSETS.glob("niivue-*.umd.js.gz"):
        old.unlink()
    (ASSETS / name).write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    (ASSETS / "SHA256").write_text(f"{digest}  {name}\n", encoding="ascii")
    print(f"{name}: {len(data)} bytes, {len(packed)} compressed, sha256 {digest}")


if __name__ == "__main__":
    main()
