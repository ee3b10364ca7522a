import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.models.read_ahead import read_ahead


class Broken(Exception):
    pass


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.integers(0, 3), max_size=20),
    threads=st.integers(1, 5),
    broken=st.integers(0, 30),
)
def test_order_and_errors_do_not_depend_on_the_threads(delays, threads, broken):
    def read(item):
        time.sleep(delays[item] / 5000)
        if item == broken:
            raise Broken
        return item, delays[item]

    received = []
    batches = read_ahead(read, range(len(delays)), threads)
    if broken < len(delays):
        with pytest.raises(Broken):
            received.extend(batches)
    else:
        received.extend(batches)
    assert received == list(enumerate(delays))[:broken]


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_is_read_than_a_batch_a_thread(threads):
    started, caller = [], threading.get_ident()
    drawn_by = set()

    def items():
        for item in range(20):
            drawn_by.add(threading.get_ident())
            yield item

    def read(item):
        started.append(item)
        assert threading.get_ident() != caller
        return item

    for received in read_ahead(read, items(), threads):
        assert len(started) <= received + 1 + threads
    assert len(started) == 20
    assert drawn_by == {caller}


def test_batches_are_read_while_the_caller_works():
    second = threading.Event()

    def read(item):
        if item == 1:
            second.set()
        return item

    batches = read_ahead(read, range(3), 1)
    assert next(batches) == 0
    assert second.wait(10), "the second batch is read though nobody asked for it"
    assert list(batches) == [1, 2]


def test_threads_end_with_the_batches():
    def alive():
        return [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]

    batches = read_ahead(str, range(100), 4)
    assert next(batches) == "0"
    assert alive()
    batches.close()
    assert not alive()
    with pytest.raises(Broken):
        next(read_ahead(lambda item: (_ for _ in ()).throw(Broken), range(9), 2))
    assert not alive()
    assert list(read_ahead(str, [], 2)) == []
