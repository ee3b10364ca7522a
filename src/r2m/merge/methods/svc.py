"""SVC: another method's update, its singular values divided by how often they count what is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, ValidationError, model_validator

from r2m.errors import R2MError
from r2m.merge import methods
from r2m.merge.kinds import Kind, kind
from r2m.merge.method import Method
from r2m.options import Positive, Section, complaint

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

# Whatever may be calibrated is found by its name at run time.
PLUG_INS = methods


class Inner(Section, extra="allow"):
    """The method whose update is calibrated; its options stand beside its name, and are complete."""

    method: str = Field(default="task_arithmetic", description="its options stand beside it")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = value.get("method", cls.model_fields["method"].default)
        given = {key: option for key, option in value.items() if key != "method"}
        if name == "svc":
            raise ValueError("svc calibrates other methods; expected one of those")
        if not isinstance(name, str):
            return value
        try:
            options = _method(name).options.model_validate(given)
        except ValidationError as error:
            raise ValueError(f"options of {name}: {complaint(error)}") from error
        return {"method": name, **options.model_dump(mode="json")}

    @property
    def resolved(self) -> tuple[Method, Section]:
        """The method and its options."""
        chosen = _method(self.method)
        return chosen, chosen.options.model_validate(self.model_extra)


class Options(Section):
    """Singular values of another method's update, calibrated."""

    alpha: Positive | None = Field(
        default=None, description="least count of one specialist in a direction; null: 1 / K"
    )
    inner: Inner = Field(default_factory=lambda: Inner.model_validate({}))


class State(NamedTuple):
    """The method that is calibrated, the function that gives its updates, and its own state."""

    inner: Method
    update: Callable[[Piece], Tensor]
    state: Any


def check(options: Options, count: int) -> None:
    """Raise R2MError where the inner method does not take so many specialists."""
    inner, own = options.inner.resolved
    inner.check_count(own, count)


def prepare(stream: TensorStream, options: Options) -> State:
    """Prepare the inner method; raises R2MError where no tensor is a matrix."""
    from r2m.merge.merging import updater

    if all(kind(key, shape) is not Kind.MATRIX for key, shape in stream.source.shapes.items()):
        raise R2MError("svc: no tensor is a matrix; expected some, since it calibrates their singular values")
    inner, own = options.inner.resolved
    return State(inner, *updater(inner, stream, own))


def merge(piece: Piece, options: Options, state: State) -> Tensor:
    """Return the inner method's update T of a matrix with its singular values calibrated, T = U Σ Vᵀ.

    σ_r is divided by mean_i max(s_ri, alpha), where s_ri = ⟨a_r, a_ri⟩ / ‖a_ri‖² counts how often the answer
    a_ri = u_rᵀ τ_i of specialist i in direction u_r is in that of the update, a_r = u_rᵀ T (arXiv 2602.05536,
    eq. 8 for s). A specialist whose answer is zero, up to rounding errors, counts alpha. The authors' code
    divides by max(mean_i s_ri, alpha) instead, and only where all s_ri > 0. Tensors that are no matrices are
    those of the inner method. A scaling of T cancels where no count is below alpha. Where singular values of
    T are equal, as Iso-C makes them, their vectors and so their counts are arbitrary.
    """
    from r2m.merge.stream import TensorStream

    if state.inner.grain == "elements":
        import torch

        pieces = TensorStream(piece.source, keys=[piece.key]).pieces(piece.key)
        update = torch.cat([state.update(part).reshape(-1) for part in pieces]).reshape(piece.shape)
    else:
        update = state.update(piece)
    if piece.kind is not Kind.MATRIX:
        return update
    return calibrated(update, piece, 1 / len(piece.names) if options.alpha is None else options.alpha)


def calibrated(update: Tensor, piece: Piece, alpha: float) -> Tensor:
    """Return the update (m, n) of a piece with every singular value divided by its mean count."""
    from r2m.merge.linalg import ROUNDING, leading_triplets, matmul

    left, values, right = leading_triplets(update.double(), min(update.shape))
    counts = values.new_zeros(len(values))
    for task_vector in piece.each_task_vector():
        own = task_vector.double()
        answers = matmul(left.T, own)
        squares = answers.square().sum(1)
        answered = squares > ROUNDING**2 * own.square().sum()
        products = values * (answers * right.T).sum(1)
        counts += (products / squares.where(answered, 1.0)).where(answered, 0.0).clamp(min=alpha)
    return matmul(left * (values * len(piece.names) / counts), right.T).float()


def describe(state: State) -> dict[str, Any]:
    """Report what the inner method does."""
    return {} if state.inner.describe is None else state.inner.describe(state.state)


def _method(name: str) -> Method:
    from r2m.merge import registry

    return registry.get(name)


METHOD = Method(
    title="SVC",
    citation="Li et al., When shared knowledge hurts: spectral over-accumulation in model merging, ICML 2026,"
    " arXiv 2602.05536",
    options=Options,
    merge=merge,
    prepare=prepare,
    check=check,
    describe=describe,
)
