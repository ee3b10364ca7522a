"""KnOTS-TIES: TIES in the coordinates of the task vectors' joint singular vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from r2m.merge.kinds import MATRICES
from r2m.merge.method import Method
from r2m.merge.methods import ties
from r2m.merge.options import Share
from r2m.options import Section

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    import torch
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

# Singular values up to this are dropped, as in the authors' code.
LEAST_VALUE = 1e-5

# Coordinates wait in chunks of so many entries.
CHUNK = 2**16


class Options(Section):
    """Joint singular value decomposition, and TIES of what is left of each specialist."""

    keep: Share = Field(
        default=0.2, description="share of each specialist's coordinates that survives the trim"
    )
    scaling: float = 1.0


class State(NamedTuple):
    """Joint left singular vectors (m, r) of every matrix, all coordinates in them, and their election."""

    frames: Mapping[str, Tensor]
    coordinates: TensorStream
    election: ties.Election | None
    device: torch.device


class Coordinates:
    """The pieces Uᵀ τ_k = Σ V_kᵀ (r, n) of all matrices, as the tensors that TIES merges."""

    def __init__(
        self, names: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]], chunks: Mapping[str, Tensor]
    ) -> None:
        self.names = names
        self.shapes = shapes
        self.unchanged: frozenset[str] = frozenset()
        self._chunks = chunks

    def base(self, key: str, start: int, stop: int) -> Tensor:
        """Coordinates have no base."""
        raise NotImplementedError

    def statistic(self, index: int, key: str, start: int, stop: int) -> Tensor | None:
        """Coordinates have no statistics."""
        raise NotImplementedError

    def first_name(self, key: str) -> str:
        """Coordinates are tied to no others."""
        raise NotImplementedError

    def scratch(self) -> MutableMapping[str, Tensor]:
        """TIES keeps nothing between its passes."""
        raise NotImplementedError

    def task_vector(self, index: int, key: str, start: int, stop: int) -> Tensor:
        """Return coordinates [start, stop) of one specialist, (n,)."""
        import torch

        numbers = range(start // CHUNK, -(-stop // CHUNK))
        joined = torch.cat([self._chunks[_chunk(key, index, number)] for number in numbers])
        return joined[start - numbers.start * CHUNK : stop - numbers.start * CHUNK]

    def task_vectors(self, key: str, start: int, stop: int) -> Tensor:
        """Return coordinates [start, stop) of all specialists, (K, n)."""
        import torch

        return torch.stack([self.task_vector(index, key, start, stop) for index in range(len(self.names))])


def prepare(stream: TensorStream, options: Options) -> State:
    """Decompose all matrices, lay frames and coordinates aside, and hold the election of TIES over all."""
    import torch

    frames, chunks = stream.scratch(), stream.scratch()

    def decompose(piece: Piece) -> tuple[int, torch.device] | None:
        if piece.kind not in MATRICES:
            return None
        frame = joint_left_vectors(piece).float()
        frames[piece.key] = frame
        for index, task_vector in enumerate(piece.each_task_vector()):
            coordinates = (frame.T @ task_vector).reshape(-1)
            for number, chunk in enumerate(coordinates.split(CHUNK)):
                chunks[_chunk(piece.key, index, number)] = chunk
        return frame.shape[1], frame.device

    found = {key: one for key, (one,) in stream.map(decompose, label="decomposing") if one is not None}
    shapes = {key: (rank, stream.source.shapes[key][1]) for key, (rank, _) in found.items() if rank > 0}
    coordinates = stream.of(Coordinates(stream.names, shapes, chunks))
    election = ties.prepare(coordinates, ties.Options(keep=options.keep)) if shapes else None
    device = next((device for _, device in found.values()), torch.device("cpu"))
    return State(frames, coordinates, election, device)


def merge(piece: Piece, options: Options, state: State) -> Tensor:
    """Return scaling · U · TIES(Σ V_1ᵀ, …, Σ V_Kᵀ) of a matrix (m, n): [τ_1 … τ_K] = U Σ [V_1ᵀ … V_Kᵀ].

    Trim and election are over the coordinates of all matrices together; the trim is of each specialist's.
    TIES depends on the basis: where singular values tie, so does the result.
    """
    import torch

    shape = state.coordinates.source.shapes.get(piece.key)
    if shape is None or state.election is None:
        return piece.task_vector(0).zero_()
    rule = ties.Options(keep=options.keep, scaling=options.scaling)
    pieces = [ties.merge(piece, rule, state.election) for piece in state.coordinates.pieces(piece.key)]
    return state.frames[piece.key].to(state.device) @ torch.cat(pieces).reshape(shape).to(state.device)


def joint_left_vectors(piece: Piece) -> Tensor:
    """Return the left singular vectors U (m, r) of [τ_1 … τ_K] with σ > 1e-5, in float64.

    From a Gram matrix, m x m or of the joined side where that is smaller, so singular values are known to
    about 1e-8 of the greatest only: enough to compare with 1e-5 while the greatest is below some hundreds.
    """
    import torch

    from r2m.merge.linalg import column_gram, eigen

    m, n = piece.shape
    if m <= n * len(piece.names):
        total = column_gram(piece.task_vector(0).T)
        for index in range(1, len(piece.names)):
            total += column_gram(piece.task_vector(index).T)
        squares, vectors = eigen(total)
        return vectors[:, squares > LEAST_VALUE**2]
    joined = torch.cat(list(piece.each_task_vector()), dim=1)
    squares, vectors = eigen(column_gram(joined))
    kept = squares > LEAST_VALUE**2
    return joined.double() @ vectors[:, kept] / squares[kept].sqrt()


def _chunk(key: str, index: int, number: int) -> str:
    return f"{key} {index} {number}"


METHOD = Method(
    title="KnOTS-TIES",
    citation="Stoica et al., Model merging with SVD to tie the KnOTS, ICLR 2025, arXiv 2410.19735",
    options=Options,
    merge=merge,
    prepare=prepare,
    others="base",
    is_proportional=True,
)
