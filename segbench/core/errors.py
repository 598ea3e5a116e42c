"""The one family of expected errors: a code, what, where, expected and found, how to mend.

The catalogue of codes stands in `segbench/core/catalogue.py`; a code is never reused.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from segbench.core.catalogue import CATALOGUE, CatalogueEntry, ExitCode

__all__ = ["CATALOGUE", "BackendUnavailable", "CatalogueEntry", "ExitCode", "SegbenchError", "unknown_name"]


class SegbenchError(Exception):
    """An error a user can mend.

    Args:
        code: A key of the catalogue, such as "SB204".
        message: What happened, one line, without the code.
        path: The file or folder concerned.
        case: The case concerned.
        expected: What was expected, for people and for `--json`.
        found: What was found instead.
        mend: How to mend it; the catalogue's own line when absent.
        details: Further lines, each a fact of its own.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: Path | str | None = None,
        case: str | None = None,
        expected: object = None,
        found: object = None,
        mend: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        entry = CATALOGUE[code]
        super().__init__(f"error[{code}]: {message}")
        self.code = code
        self.message = message
        self.path = None if path is None else Path(path)
        self.case = case
        self.expected = expected
        self.found = found
        self.mend = entry.mend if mend is None else mend
        self.details = tuple(details)
        self.exit_code = entry.exit_code

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders whole (worker pools pickle them)."""
        return _rebuild, (type(self), self.code, self.message, self._fields())

    def _fields(self) -> dict[str, object]:
        return {
            "path": self.path,
            "case": self.case,
            "expected": self.expected,
            "found": self.found,
            "mend": self.mend,
            "details": self.details,
        }

    def with_details(self, *lines: str, **changes: Any) -> SegbenchError:
        """The same error with further lines, and with other fields where they are named.

        Args:
            lines: facts after those it holds already.
            changes: fields by name, such as `case` or `message`.
        """
        fields: dict[str, Any] = {**self._fields(), "details": (*self.details, *lines), **changes}
        return SegbenchError(self.code, fields.pop("message", self.message), **fields)

    def as_dict(self) -> dict[str, object]:
        """The error as plain values, for JSON output and records."""
        fields = self._fields()
        fields["path"] = None if self.path is None else str(self.path)
        fields["details"] = list(self.details)
        fields["expected"] = None if self.expected is None else str(self.expected)
        fields["found"] = None if self.found is None else str(self.found)
        return {"code": self.code, "message": self.message, **fields}


@contextmanager
def about_case(case: str) -> Generator[None, None, None]:
    """An error raised inside names the case, where it names none yet."""
    try:
        yield
    except SegbenchError as error:
        error.case = error.case or case
        raise


class BackendUnavailable(SegbenchError):  # noqa: N818 - the name is part of the public interface
    """An explicitly named backend, extra or device cannot be used here (SB502)."""

    def __init__(self, message: str, *, mend: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__("SB502", message, mend=mend, details=details)

    def __reduce__(self) -> tuple[object, ...]:
        return BackendUnavailable._again, (self.message, self.mend, self.details)

    @staticmethod
    def _again(message: str, mend: str, details: tuple[str, ...]) -> BackendUnavailable:
        return BackendUnavailable(message, mend=mend, details=details)


def _rebuild(kind: type[SegbenchError], code: str, message: str, fields: dict[str, object]) -> SegbenchError:
    return kind(code, message, **fields)  # type: ignore[arg-type]


def unknown_name(what: str, name: str, known: Sequence[str], *, listing: str) -> SegbenchError:
    """SB101 with the nearest known names.

    Args:
        what: The kind of thing, such as "model".
        name: What the user wrote.
        known: All names that exist.
        listing: The command that lists them, such as "segbench list models".
    """
    near = nearest_names(name, known)
    hint = f"did you mean {' or '.join(near)}?   " if near else ""
    own = "   your own cards: --cards DIR or SEGBENCH_CARDS" if what in {"model", "dataset"} else ""
    mend = f"{hint}all: {listing}{own}"
    return SegbenchError("SB101", f"no {what} called '{name}'", found=name, expected=list(near), mend=mend)


def nearest_names(name: str, known: Sequence[str], *, count: int = 3) -> list[str]:
    """Up to `count` known names nearest to a misspelt one, best first."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.5)
    return [lowered[key] for key in near]
