"""What a network costs: parameters, operations, time, memory, throughput and energy, one row at a time.

`profile_rows` measures requests, each in a fresh process; `static_row` counts without computing.
"""

from segbench.profiling.request import ProfileRequest
from segbench.profiling.rows import profile_rows
from segbench.profiling.schema import ProfileDocument, ProfileRow

__all__ = ["ProfileDocument", "ProfileRequest", "ProfileRow", "profile_rows"]
