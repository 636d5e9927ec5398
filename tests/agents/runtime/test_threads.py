"""Torch has one thread where worlds are stepped, and its caller's number of threads everywhere else."""

from threading import Event, Thread

import pytest
import torch

from dexcompose_agents.runtime.threads import one_thread

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("before", [1, 2, 3])
def test_the_number_of_threads_comes_back(torch_threads, before):
    torch_threads(before)
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread(CPU):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_it_comes_back_after_an_error(torch_threads):
    torch_threads(2)
    with pytest.raises(KeyboardInterrupt), one_thread(), one_thread():
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


def test_it_stays_where_a_gpu_calculates(torch_threads):
    torch_threads(2)
    with one_thread(GPU):
        assert torch.get_num_threads() == 2
    with one_thread(), one_thread(GPU):
        assert torch.get_num_threads() == 1


def test_other_threads_keep_their_number(torch_threads):
    torch_threads(2)
    ready, limited, seen = Event(), Event(), []

    def work():
        torch.set_num_threads(3)
        torch.get_num_threads()  # as a calculation would: from now on the number is the thread's own
        ready.set()
        limited.wait(60)
        seen.append(torch.get_num_threads())

    other = Thread(target=work)
    other.start()
    ready.wait(60)
    with one_thread():
        limited.set()
        other.join()
    assert seen == [3]
    assert torch.get_num_threads() == 2


def test_a_function_may_always_run_on_one_thread(torch_threads):
    torch_threads(2)
    count = one_thread()(torch.get_num_threads)
    assert [count(), count()] == [1, 1]
    assert torch.get_num_threads() == 2
