"""Prometheus text: written, labelled, and merged however it is cut into pieces."""

from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from magnetar.broker.doors.admin.http.exposition import Family, labelled, labels, merged, sample
from magnetar.broker.doors.admin.http.siblings import SiblingDownError
from magnetar.broker.metrics import Metrics


async def pieces(
    text: str, sizes: Sequence[int] = (), *, break_off: bool = False
) -> AsyncIterator[bytes]:
    data, at = text.encode(), 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    if break_off:
        raise SiblingDownError(1, "it hung up")
    yield data[at:]


async def merge(*texts: AsyncIterator[bytes]) -> str:
    return b"".join([piece async for piece in merged(texts)]).decode()


def text_of(families: dict[str, dict[str, int]]) -> str:
    """One text; families are given as name -> label -> value."""
    return "".join(
        Family(name, "Help.", "gauge").head()
        + "".join(sample(name, labels({"who": who}), value) for who, value in samples.items())
        for name, samples in sorted(families.items())
    )


def read(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in parse(text):
        assert family.name not in found, "a family appears once"
        found[family.name] = {each.labels["who"]: each.value for each in family.samples}
    return found


families = st.dictionaries(
    st.sampled_from(["a_b", "b", "c_total", "d", "aa"]),
    st.dictionaries(st.text(max_size=5), st.integers(-9, 9), max_size=4),
    max_size=4,
)


@given(
    st.lists(families, max_size=3),
    st.lists(st.integers(1, 40), max_size=20),
)
async def test_a_merge_agrees_with_merging_dictionaries(
    texts: list[dict[str, dict[str, int]]], sizes: list[int]
) -> None:
    tagged = [
        {
            name: {f"{i}{who}": value for who, value in samples.items()}
            for name, samples in text.items()
        }
        for i, text in enumerate(texts)
    ]
    model: dict[str, dict[str, float]] = {}
    for text in tagged:
        for name, samples in text.items():
            # The parser takes the ending off a counter's name only if it is one.
            model.setdefault(name, {}).update(samples)
    assert read(await merge(*(pieces(text_of(text), sizes) for text in tagged))) == model


@given(st.integers(0, 400))
async def test_a_text_that_breaks_off_never_damages_the_others(cut: int) -> None:
    whole = text_of({name: {str(i): i for i in range(5)} for name in ("a", "b", "c")})
    other = text_of({name: {f"x{i}": i for i in range(5)} for name in ("a", "b", "c")})
    found = read(await merge(pieces(whole, [cut], break_off=True), pieces(other)))
    for name in ("a", "b", "c"):
        assert {who for who in found[name] if who.startswith("x")} == {f"x{i}" for i in range(5)}
        assert set(found[name]) <= {f"x{i}" for i in range(5)} | {str(i) for i in range(5)}


def test_labels_with_quotes_and_line_ends_read_back() -> None:
    hostile = 'a"b\\c\nd}e{,='
    text = Family("x", "Help.", "gauge").head() + sample("x", labels({"who": hostile}), 1.5)
    assert read(text) == {"x": {hostile: 1.5}}


def test_large_numbers_keep_their_digits() -> None:
    assert sample("x", "", 2**52 + 1) == f"x{{}} {2**52 + 1}\n"


def test_every_sample_of_our_own_series_gets_the_labels() -> None:
    metrics = Metrics()
    metrics.counter("a_total", "Help.").value = 3
    metrics.histogram("h_seconds", "Help.", [0.5, 1]).observe(0.7)
    metrics.gauge("g", "Help.", lambda: 2)
    text = "".join(labelled(block, 'worker="1"') for block in metrics.render())
    samples = [each for family in parse(text) for each in family.samples]
    assert {each.labels["worker"] for each in samples} == {"1"}
    assert [each.value for each in samples if each.labels.get("le") == "1"] == [1]


async def test_a_merge_that_forgot_to_sort_would_be_noticed() -> None:
    unsorted = text_of({"b": {"1": 1}}) + text_of({"a": {"1": 1}})
    with pytest.raises(AssertionError, match="appears once"):
        read(await merge(pieces(unsorted), pieces(text_of({"a": {"2": 2}, "b": {"2": 2}}))))
