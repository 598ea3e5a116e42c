"""Check the fingerprints of all networks, or write them anew (`--write`).

python scripts/fingerprints.py [--check] [SLUG ...]
python scripts/fingerprints.py --write SLUG [--force] [--verified-against SOURCE --how TEXT]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from segbench.cards import find_card_folder
from segbench.core.atomic import atomic_write_json
from segbench.core.console import emit, fail
from segbench.core.errors import ExitCode, SegbenchError
from segbench.networks.fingerprint import (
    FILE,
    check_fingerprint,
    fingerprint_lines,
    read_fingerprint,
    take_fingerprint,
)
from segbench.networks.registry import list_networks, network_card


def write_fingerprint(
    slug: str, *, force: bool = False, verified_against: Mapping[str, str] | None = None
) -> Path:
    """Write a network's fingerprint beside its card; gives the file.

    Args:
        slug: A network's slug.
        force: Overwrite a fingerprint that was verified against an outside source.
        verified_against: {source, how, date} of an outside check that this build has passed.

    Raises:
        SegbenchError: SB110 where the stored one was verified against an outside source and `force` is off.
    """
    path = find_card_folder("models", network_card(slug).slug) / FILE
    if path.is_file() and not force and read_fingerprint(slug)["verified_against"] is not None:
        raise SegbenchError(
            "SB110",
            f"the fingerprint of '{slug}' was verified against an outside source and is not overwritten",
            path=path,
            mend="say --force, and name the change in the changelog",
        )
    content = take_fingerprint(slug)
    content["verified_against"] = None if verified_against is None else dict(verified_against)
    atomic_write_json(path, content)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write fingerprints from the shell; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slugs", nargs="*", help="networks; all when none is named")
    parser.add_argument("--write", action="store_true", help="write them anew")
    parser.add_argument("--check", action="store_true", help="compare them (the default)")
    parser.add_argument(
        "--force", action="store_true", help="overwrite one verified against an outside source"
    )
    parser.add_argument(
        "--verified-against", metavar="SOURCE", help="with --write: an outside source it equals"
    )
    parser.add_argument("--how", metavar="TEXT", help="with --verified-against: how that was found")
    chosen = parser.parse_args(arguments)
    if chosen.verified_against and not (chosen.write and chosen.how):
        parser.error("--verified-against goes with --write and --how")
    verified = None
    if chosen.verified_against:
        today = datetime.now(tz=UTC).date().isoformat()
        verified = {"source": chosen.verified_against, "how": chosen.how, "date": today}
    code = 0
    for slug in chosen.slugs or list_networks():
        try:
            if chosen.write:
                emit(str(write_fingerprint(slug, force=chosen.force, verified_against=verified)))
                continue
            found = check_fingerprint(slug)
        except SegbenchError as error:
            fail(error)
            code = code or error.exit_code
            continue
        for line in fingerprint_lines(slug, found):
            emit(line)
        code = code or (ExitCode.GATE if found else 0)
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
