"""What every test starts from."""

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")                   # of the processes that tests start
torch.set_num_threads(1)                                        # the same sums in the same order on every machine, and small tensors are faster so


@pytest.fixture(autouse=True)
def seeded():
    """New networks and the global random numbers are the same in each test, whatever ran before it."""
    torch.manual_seed(0)
