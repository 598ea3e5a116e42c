"""What a network costs: parameters, operations, time, memory and energy, one row at a time.

`profile_rows` measures requests, each in a fresh process; `static_row` counts without computing.
"""

from segbench.profiling.rows import profile_rows
from segbench.profiling.schema import ProfileDocument, ProfileRequest, ProfileRow

__all__ = ["ProfileDocument", "ProfileRequest", "ProfileRow", "profile_rows"]
