"""A linear layer of which the least singular directions are trained, and the others stay as they are."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SubspaceLinear(nn.Module):
    """A linear layer of weight A + U diag(S) V: A `(m, n)` is frozen, U `(m, k)`, S `(k,)`, V `(k, n)` not.

    They start as the k least singular triplets of the layer's weight, and A as that weight less these. A and
    the bias are the parameters of `layer`.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        """Split `layer`, whose weight becomes A; `rank` is less than its sides."""
        super().__init__()
        weight = layer.weight.detach()
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        self.layer = layer.requires_grad_(False)
        self.u = nn.Parameter(u[:, -rank:].contiguous())
        self.s = nn.Parameter(s[-rank:].contiguous())
        self.v = nn.Parameter(v[-rank:].contiguous())
        # No buffers: the base gives them, and a resumable state would hold them.
        self.frozen_u, self.frozen_v = u[:, :-rank], v[:-rank]
        with torch.no_grad():
            weight.sub_(self._residual())
            self.initial_norm = self._norm()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs `(…, m)` of inputs `(…, n)`."""
        return self.layer(x) + F.linear(F.linear(x, self.v) * self.s, self.u)

    def weight_now(self) -> Tensor:
        """Return the dense weight `(m, n)`."""
        return self.layer.weight + self._residual()

    def orthogonality(self) -> Tensor:
        """Return ‖ÛᵀÛ − I‖² + ‖V̂V̂ᵀ − I‖², Û and V̂ being U and V beside the frozen directions."""
        return _deviation(self.frozen_u.T @ self.u, self.u.T @ self.u) + _deviation(
            self.frozen_v @ self.v.T, self.v @ self.v.T
        )

    def norm_change(self) -> Tensor:
        """Return |‖W‖² − ‖W₀‖²|, W being the dense weight."""
        return (self._norm() - self.initial_norm).abs()

    def _residual(self) -> Tensor:
        return (self.u * self.s) @ self.v

    def _norm(self) -> Tensor:
        """Return ‖W‖² − ‖A‖², without the rounding of these much greater numbers."""
        scaled = self.u * self.s
        squared = ((scaled.T @ scaled) * (self.v @ self.v.T)).sum()
        return squared + 2 * ((self.layer.weight @ self.v.T) * scaled).sum()


def _deviation(cross: Tensor, gram: Tensor) -> Tensor:
    """Return ‖G − I‖² of the Gram matrix G of frozen orthonormal directions and others, from its blocks."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return 2 * cross.square().sum() + (gram - identity).square().sum()
