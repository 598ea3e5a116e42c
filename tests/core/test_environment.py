"""What the record says about the machine and the checkout is read without touching either."""

import os
import subprocess
from pathlib import Path

from segbench.core.environment import git_state


def test_looking_at_a_checkout_takes_no_lock_of_it(tmp_path: Path) -> None:
    """The index is not rewritten, so a `git commit` of the user at that moment is not refused."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    tracked = tmp_path / "a.txt"
    tracked.write_text("one\n", encoding="utf-8")
    git("add", "a.txt")
    git("commit", "-q", "-m", "first")
    # Same text, another time: git would refresh its index if it were allowed to.
    os.utime(tracked, (1_000_000_000, 1_000_000_000))
    before = (tmp_path / ".git" / "index").read_bytes()

    state = git_state(tmp_path)

    assert state is not None
    assert state["dirty"] is False
    assert (tmp_path / ".git" / "index").read_bytes() == before

    tracked.write_text("two\n", encoding="utf-8")
    changed = git_state(tmp_path)
    assert changed is not None
    assert changed["dirty"] is True
