"""Leading eigenvectors by LAPACK's address, as a merge takes them, beside the public routes."""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from r2m.merge.linalg import leading_eigen, side_gram

Route = Callable[[Tensor, int], object]


def by_scipy(symmetric: Tensor, rank: int) -> object:
    """`scipy.linalg.eigh` of a range, which holds the interpreter's lock."""
    size = len(symmetric)
    return scipy.linalg.eigh(
        symmetric.numpy(), subset_by_index=[size - rank, size - 1], driver="evr", check_finite=False
    )


def by_torch(symmetric: Tensor, rank: int) -> object:
    """`torch.linalg.eigh`, which knows no range."""
    return torch.linalg.eigh(symmetric)


ROUTES: dict[str, Route] = {"address": leading_eigen, "scipy": by_scipy, "torch": by_torch}


def seconds(route: Route, matrices: Sequence[Tensor], rank: int, threads: int) -> float:
    """Return how long a route takes for all matrices on so many threads of one BLAS thread each."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda matrix: route(matrix, rank), matrices))
    return time.perf_counter() - start


def main() -> None:
    """Print a table of the best time of each route, a matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[768, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| n | rank | threads | " + " | ".join(f"{name}, s" for name in ROUTES) + " |")
    print("|---|---|---|" + "---|" * len(ROUTES))
    for size in options.sizes:
        generator = torch.Generator().manual_seed(0)
        matrices = [
            side_gram(torch.randn(size, 2 * size, generator=generator), torch.float32) for _ in range(4)
        ]
        rank = size // 10
        for threads in (1, 2):
            with threadpool_limits(1):
                rounds = [
                    [seconds(route, matrices, rank, threads) for route in ROUTES.values()]
                    for _ in range(options.rounds)
                ]
            best = (min(times) / len(matrices) for times in zip(*rounds, strict=True))
            print(f"| {size} | {rank} | {threads} | " + " | ".join(f"{time:.3f}" for time in best) + " |")


if __name__ == "__main__":
    main()
