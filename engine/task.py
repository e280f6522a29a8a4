"""The type of what `Nursery.start` hands to a task.

libp2p brings type stubs of an older trio, which hide trio's own types from the type checker
and keep this one in another package. At run time it is trio's.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_typing import TaskStatus
else:
    from trio import TaskStatus

__all__ = ["TaskStatus"]
