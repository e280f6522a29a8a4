"""From the hidden rows of a text's tokens to one vector: mean, first or last of them.

Pooled here, not by llama.cpp, which loses tokens of longer texts when places have cells of their
own, and is asked for one way of pooling a context. Must not know batches.
Rule: engine/README.md, "Embeddings".
"""

import numpy as np
import numpy.typing as npt

from engine.interface import Pooling

Rows = npt.NDArray[np.float32]


class Embedder:
    """One text: takes the rows of its tokens in order, however they are cut."""

    def __init__(self, pooling: Pooling, *, normalized: bool) -> None:
        assert pooling is not Pooling.MODEL
        self._pooling = pooling
        self._normalized = normalized
        self._count = 0
        self._sum: npt.NDArray[np.float64] | None = None

    def restart(self) -> None:
        """Forget the rows: they will come again from the first."""
        self._count, self._sum = 0, None

    def take(self, rows: Rows) -> None:
        """The next rows, (tokens, dimensions), at least one."""
        if self._pooling is Pooling.LAST:
            self._sum, self._count = rows[-1].astype(np.float64), 1
        elif self._pooling is Pooling.MEAN:
            rows_sum = rows.sum(axis=0, dtype=np.float64)
            self._sum = rows_sum if self._sum is None else self._sum + rows_sum
            self._count += len(rows)
        elif self._sum is None:
            self._sum, self._count = rows[0].astype(np.float64), 1

    def vector(self) -> bytes | None:
        """The embedding as little-endian float32; None when it is not of finite numbers."""
        assert self._sum is not None
        vector = self._sum / self._count
        length = float(np.linalg.norm(vector))
        if self._normalized and length:
            vector /= length
        if not np.isfinite(vector).all():
            return None
        return vector.astype("<f4").tobytes()
