"""Memory is used again, and never while somebody still looks at it."""

from magnetar.broker.storage.slab import SLABS_FREE_MIN, SlabPool, is_unseen


def test_a_slab_that_nobody_sees_is_used_again() -> None:
    pool = SlabPool(1024)
    slab = pool.take(100)
    memory = slab.memory
    slab.used = 80
    pool.give_back([slab])
    again = pool.take(1024)
    assert again.memory is memory
    assert again.used == 0


def test_a_slab_waits_for_its_last_reader() -> None:
    pool = SlabPool(1024)
    slab = pool.take(100)
    memory = slab.memory
    reader = slab.view[10:20]
    pool.give_back([slab])
    other = pool.take(100)
    assert other.memory is not memory
    reader.release()
    assert pool.take(100).memory is memory


def test_a_view_of_a_view_counts_as_a_reader() -> None:
    pool = SlabPool(1024)
    slab = pool.take(100)
    column = slab.view[0:80].cast("I")[0::20]
    assert not is_unseen(slab)
    del column
    assert is_unseen(slab)


def test_a_large_slab_is_not_kept() -> None:
    pool = SlabPool(1024)
    large = pool.take(5000)
    assert large.size == 5000
    pool.give_back([large])
    assert pool.take(5000) is not large


def test_the_pool_keeps_as_many_as_were_in_use() -> None:
    pool = SlabPool(1024)
    pool.give_back([pool.take(1) for _ in range(SLABS_FREE_MIN + 9)])
    assert len(pool._free) == SLABS_FREE_MIN + 9
    pool.give_back([pool.take(1)])
    assert len(pool._free) == SLABS_FREE_MIN
