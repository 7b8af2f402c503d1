import threading

import pytest
import torch

from metalib.threads import available_threads, side_by_side


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_values_come_in_the_order_of_the_items(threads):
    assert side_by_side(lambda item: item**2, range(20), threads) == [item**2 for item in range(20)]
    assert side_by_side(lambda item: item, [], threads) == []


def test_two_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=10)
    assert len(set(side_by_side(lambda _: (both.wait(), threading.get_ident())[1], range(2), 2))) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_each_piece_has_one_torch_thread_and_the_caller_keeps_its_own(threads):
    torch.set_num_threads(2)
    assert side_by_side(lambda _: torch.get_num_threads(), range(4), threads) == [1] * 4
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_reaches_the_caller_and_restores_its_threads(threads):
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 // item, [1, 0, 1], threads)
    assert torch.get_num_threads() == 2


def test_this_process_has_a_processor():
    assert available_threads() >= 1
