"""Multiply a sparse matrix with dense columns, on any device, with results that repeat bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Sparse matrix by rows: row r holds the entries start[r] to start[r + 1] of `column_P` and `weight_P`.

    One thread sums each row in the order of its entries (`embedding_bag`, no atomics).

    Example:
        >>> matrix = SparseRows(torch.tensor([0, 1, 3]), torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.5, 0.5]))
        >>> matrix.times(torch.tensor([[2.0], [4.0]]))
        tensor([[2.],
                [3.]])
    """

    start: Tensor
    column_P: Tensor
    weight_P: Tensor

    def times(self, values_MC: Tensor) -> Tensor:
        """Multiply the matrix with values (M, C). Returns values with a row for each of the matrix."""
        weight_P = self.weight_P.to(values_MC.dtype)
        return functional.embedding_bag(
            self.column_P, values_MC, self.start, mode="sum", per_sample_weights=weight_P, include_last_offset=True
        )
