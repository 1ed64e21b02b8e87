"""Deduplication stores each sequence id of a producer name once."""

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import ROW, Run
from magnetar.broker.topics.producers.deduplication import Judgement, Sequences, merge

NEW, DUPLICATE, WAITING = Judgement.NEW, Judgement.DUPLICATE, Judgement.WAITING
PIECE = EntryFlags.CHUNK
LAST_PIECE = EntryFlags.CHUNK | EntryFlags.LAST_CHUNK


def rows(*ids: int | tuple[int, int], flags: list[int] | None = None) -> Run:
    """A run with these sequence ids; a pair is a batch's first and last."""
    packed = bytearray()
    for number, each in enumerate(ids):
        first, last = each if isinstance(each, tuple) else (each, each)
        flag = flags[number] if flags else 0
        packed += ROW.pack(
            0, 0, 0, max(1, last - first + 1), 0, flag, 0, 0, first, last, 0, 0, 0, 0
        )
    return Run(packed, b"")


def judged(sequences: Sequences, run: Run) -> list[Judgement]:
    """The judgement on every row."""
    verdicts = sequences.judge("p", run)
    assert [v.first_row for v in verdicts] == [
        sum(v.rows for v in verdicts[:i]) for i in range(len(verdicts))
    ]
    return [v.judgement for v in verdicts for _ in range(v.rows)]


def test_a_name_that_never_published_has_no_sequence_id() -> None:
    assert Sequences().durable("p") == -1


def test_the_first_sequence_id_may_be_zero() -> None:
    assert judged(Sequences(), rows(0, 1, 2)) == [NEW, NEW, NEW]


def test_what_is_durable_is_a_duplicate_when_it_comes_again() -> None:
    sequences = Sequences({"p": 5})
    assert judged(sequences, rows(4, 5, 6)) == [DUPLICATE, DUPLICATE, NEW]


def test_what_is_on_its_way_waits_when_it_comes_again() -> None:
    sequences = Sequences({"p": 5})
    sequences.judge("p", rows(6, 7))
    assert judged(sequences, rows(5, 6, 7, 8)) == [DUPLICATE, WAITING, WAITING, NEW]


def test_names_do_not_disturb_each_other() -> None:
    sequences = Sequences({"q": 100})
    assert judged(sequences, rows(0)) == [NEW]


def test_what_failed_may_be_sent_again() -> None:
    sequences = Sequences({"p": 5})
    sequences.judge("p", rows(6, 7))
    sequences.failed("p")
    assert judged(sequences, rows(5, 6, 7)) == [DUPLICATE, NEW, NEW]


def test_a_batch_counts_with_its_last_sequence_id() -> None:
    sequences = Sequences()
    [verdict] = sequences.judge("p", rows((0, 9), (10, 19)))
    assert verdict.highest == 19
    sequences.stored("p", verdict.highest)
    assert judged(sequences, rows((10, 19), (20, 29))) == [DUPLICATE, NEW]


def test_an_equal_sequence_id_in_the_same_run_is_a_duplicate_too() -> None:
    assert judged(Sequences(), rows(3, 3)) == [NEW, WAITING]


def test_a_highest_sequence_id_that_was_left_out_counts_as_the_sequence_id() -> None:
    run = rows((3, 0), (3, 0))
    assert judged(Sequences(), run) == [NEW, WAITING]


def test_a_chunked_message_that_comes_again_leaves_no_pieces_behind() -> None:
    sequences = Sequences({"p": 6})
    whole = rows(7, 7, 7, flags=[PIECE, PIECE, LAST_PIECE])
    assert judged(sequences, whole) == [NEW, NEW, NEW]
    assert judged(sequences, whole) == [WAITING, WAITING, WAITING]
    sequences.stored("p", 7)
    assert judged(sequences, whole) == [DUPLICATE, DUPLICATE, DUPLICATE]


def test_pieces_are_new_until_the_last_one_was_sent() -> None:
    sequences = Sequences({"p": 6})
    assert judged(sequences, rows(7, 7, flags=[PIECE, PIECE])) == [NEW, NEW]
    assert judged(sequences, rows(7, 7, flags=[PIECE, LAST_PIECE])) == [NEW, NEW]


def test_pieces_that_complete_no_message_make_nothing_durable() -> None:
    sequences = Sequences({"p": 6})
    [verdict] = sequences.judge("p", rows(7, 7, flags=[PIECE, PIECE]))
    assert verdict.highest == -1
    assert judged(sequences, rows(7, flags=[LAST_PIECE])) == [NEW]


def test_pieces_are_kept_apart_from_rows_that_raise_the_sequence_id() -> None:
    verdicts = Sequences().judge("p", rows(6, 7, 7, 7, flags=[0, PIECE, PIECE, LAST_PIECE]))
    assert [(v.rows, v.highest) for v in verdicts] == [(1, 6), (2, -1), (1, 7)]


def test_only_names_that_changed_are_saved_and_only_once() -> None:
    sequences = Sequences({"old": 1})
    sequences.stored("p", 4)
    sequences.stored("p", 3)
    assert sequences.unsaved() == {"p": 4}
    assert sequences.unsaved() == {}


def test_what_could_not_be_saved_is_offered_again() -> None:
    sequences = Sequences()
    sequences.stored("p", 4)
    sequences.save_failed(sequences.unsaved())
    sequences.stored("p", 5)
    assert sequences.unsaved() == {"p": 5}


def test_the_journal_and_the_checkpoint_are_merged_name_by_name() -> None:
    assert merge({"p": 5, "q": 1}, {"p": 3, "r": 2}) == {"p": 5, "q": 1, "r": 2}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.lists(st.integers(0, 12), min_size=1, max_size=5)),
            st.tuples(st.just("commit"), st.just([])),
            st.tuples(st.just("fail"), st.just([])),
        )
    )
)
def test_it_agrees_with_a_plain_model_that_keeps_every_copy(
    steps: list[tuple[str, list[int]]],
) -> None:
    sequences = Sequences()
    written: list[int] = []
    on_the_way: list[int] = []
    for step, ids in steps:
        if step == "send":
            for verdict in sequences.judge("p", rows(*ids)):
                for sequence_id in ids[verdict.first_row : verdict.first_row + verdict.rows]:
                    if verdict.judgement is NEW:
                        assert sequence_id > max(written + on_the_way, default=-1)
                        on_the_way.append(sequence_id)
                    elif verdict.judgement is DUPLICATE:
                        assert sequence_id <= max(written, default=-1)
                    else:
                        assert max(written, default=-1) < sequence_id <= max(on_the_way)
        elif step == "commit" and on_the_way:
            sequences.stored("p", max(on_the_way))
            written += on_the_way
            on_the_way = []
        elif step == "fail":
            sequences.failed("p")
            on_the_way = []
    assert written == sorted(set(written))
    assert sequences.durable("p") == max(written, default=-1)
