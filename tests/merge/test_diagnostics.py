import itertools
import math
from statistics import median

import pytest
import torch

from r2m.merge.diagnostics import COSINE_SPREAD, NORM_SPREAD, THRESHOLD, Diagnosis, Survey, diagnose


def z_by_hand(values, spread):
    logs = [math.log(value) for value in values]
    middle = median(logs)
    mad = median(abs(one - middle) for one in logs)
    return [(one - middle) / max(1.4826 * mad, spread) for one in logs]


def sample(count, size=20_000, share=0.4, seed=0):
    """Task vectors (K, P) that share one direction, and vary in norm by a tenth."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(count, size, generator=generator, dtype=torch.float64)
    shared = torch.randn(size, generator=generator, dtype=torch.float64)
    norms = 1 + 0.1 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return norms * (share * shared + (1 - share**2) ** 0.5 * own)


def diagnosed(task_vectors):
    gram = task_vectors @ task_vectors.T
    return Survey(0.0, gram.diagonal(), gram.sum(1)).diagnoses()


def test_scores_are_those_of_the_formula():
    norms, cosines = [1.0, 1.2, 0.5, 3.0, 1.1], [0.3, 0.2, 0.05, 0.4, -0.1]
    found = diagnose(norms, cosines)
    assert [one.norm_z for one in found] == pytest.approx(z_by_hand(norms, NORM_SPREAD))
    expected = z_by_hand([0.3, 0.2, 0.05, 0.4, 0.01], COSINE_SPREAD)
    assert [one.cosine_z for one in found] == pytest.approx(expected)


def test_cosines_from_the_gram_are_those_to_the_sum_of_the_others():
    task_vectors = sample(4, 500)
    gram = task_vectors @ task_vectors.T
    found = Survey(0.0, gram.diagonal(), gram.sum(1)).cosines()
    for place, cosine in enumerate(found):
        others = torch.cat([task_vectors[:place], task_vectors[place + 1 :]]).sum(0)
        assert cosine == pytest.approx(torch.cosine_similarity(task_vectors[place], others, dim=0).item())


def test_honest_specialists_do_not_stand_out():
    task_vectors = sample(6)
    for size in range(3, 7):
        for members in itertools.combinations(range(6), size):
            assert not any(one.stands_out for one in diagnosed(task_vectors[list(members)]))


@pytest.mark.parametrize("factor", [10, 0.1])
def test_another_length_stands_out(factor):
    task_vectors = sample(4)
    task_vectors[2] *= factor
    found = diagnosed(task_vectors)
    assert [one.norm_stands_out for one in found] == [False, False, True, False]
    assert not any(one.cosine_stands_out for one in found)
    assert (found[2].norm_z > 0) == (factor > 1)


@pytest.mark.parametrize("direction", ["random", "opposite"])
def test_another_direction_stands_out(direction):
    task_vectors = sample(4)
    if direction == "opposite":
        task_vectors[1] *= -1
    else:
        task_vectors[1] = torch.randn(task_vectors.shape[1], generator=torch.Generator().manual_seed(1))
    found = diagnosed(task_vectors)
    assert [one.cosine_stands_out for one in found] == [False, True, False, False]
    assert not any(one.norm_stands_out for one in found)


def test_what_shares_nothing_does_not_stand_out_by_direction():
    assert not any(one.stands_out for one in diagnosed(sample(5, share=0.0)))
    assert not any(one.stands_out for one in diagnose([1, 1, 1, 1], [0.02, 0.0, -0.01, 0.03]))


def test_a_greater_cosine_is_no_reproach():
    found = diagnose([1, 1, 1, 1], [0.02, 0.02, 0.02, 0.9])
    assert found[3].cosine_z > THRESHOLD
    assert not found[3].stands_out


def test_two_are_too_few_and_zeros_are_left_out():
    assert diagnose([1, 50], [0.5, 0.5]) == [Diagnosis(), Diagnosis()]
    assert diagnose([0, 1, 50], [None, 0.5, 0.5]) == [Diagnosis()] * 3
    found = diagnose([0, 1, 1, 50], [None, 0.5, 0.5, 0.5])
    assert found[0] == Diagnosis()
    assert [one.norm_stands_out for one in found] == [False, False, False, True]
