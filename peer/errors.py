"""From what a nursery raises to the one error that a person or a client should read."""

from protocol.errors import PeerdError, StorageError


def first_error(problem: BaseException) -> BaseException:
    """The most telling error in a group: the log's first, then any coded one, then any."""
    leaves = list(_leaves(problem))
    for kind in (StorageError, PeerdError, KeyboardInterrupt):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(problem: BaseException) -> list[BaseException]:
    if isinstance(problem, BaseExceptionGroup):
        return [leaf for inner in problem.exceptions for leaf in _leaves(inner)]
    return [problem]
