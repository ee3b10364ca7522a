import pytest
import torch
from merge_samples import random_task_vectors


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def task_vectors():
    return random_task_vectors(3)
