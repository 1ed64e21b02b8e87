"""Settings of a running broker: bounded, durable, the same in all processes."""

from pathlib import Path

import pytest

from magnetar.broker.config import LIVE, MIB, BrokerConfig, ConfigError
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.live_settings import LiveSettings, named, parse, shown
from magnetar.broker.metadata.store import Put, Store
from tests.waiting import until


def config(**settings: object) -> BrokerConfig:
    return BrokerConfig(data=Path("data"), **settings)  # type: ignore[arg-type]


async def test_a_change_holds_at_once_and_after_a_restart(store: Store) -> None:
    mine = config(dispatch_entries_max=50)
    settings = LiveSettings(store, mine)
    told: list[int] = []
    settings.when_changed = lambda: told.append(mine.dispatch_entries_max)
    settings.watch()
    await settings.set("dispatch_entries_max", "7")
    await until(lambda: told)
    assert (mine.dispatch_entries_max, told) == (7, [7])
    after = config(dispatch_entries_max=50)
    again = LiveSettings(store, after)
    await again.load()
    assert after.dispatch_entries_max == 7
    await again.unset("dispatch_entries_max")
    await until(lambda: len(told) == 2)
    assert (mine.dispatch_entries_max, told) == (50, [7, 50])
    await again.load()
    assert after.dispatch_entries_max == 50


async def test_pulsars_names_mean_the_same(store: Store) -> None:
    mine = config()
    settings = LiveSettings(store, mine)
    await settings.set("dispatcherMaxReadBatchSize", "9")
    await settings.load()
    assert mine.dispatch_entries_max == 9
    told = shown(await settings.stored())
    assert told == {"dispatch_entries_max": "9", "dispatcherMaxReadBatchSize": "9"}
    await settings.unset("dispatcherMaxReadBatchSize")
    assert await settings.stored() == {}


async def test_a_word_is_set_shown_and_there_after_a_restart(store: Store) -> None:
    settings = LiveSettings(store, config())
    await settings.set("schema_strategy", "BACKWARD")
    after = config()
    again = LiveSettings(store, after)
    await again.load()
    assert after.schema_strategy == "BACKWARD"
    assert shown(await again.stored()) == {"schema_strategy": "BACKWARD"}
    assert shown(again.in_force())["schema_required"] == "false"
    await settings.set("isAllowAutoUpdateSchemaEnabled", "false")
    await again.load()
    assert not after.schema_updates_allowed


async def test_what_is_divided_is_set_and_shown_for_the_whole_folder(store: Store) -> None:
    mine = config(workers=4, write_cache_bytes_max=8 * MIB)
    settings = LiveSettings(store, mine)
    assert settings.in_force()["write_cache_bytes_max"] == 32 * MIB
    await settings.set("write_cache_bytes_max", str(64 * MIB))
    await settings.load()
    assert mine.write_cache_bytes_max == 16 * MIB
    assert settings.in_force()["write_cache_bytes_max"] == 64 * MIB


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("journal_window_ms", "2.5", "journal_window_ms is 2.5, allowed: 0 to 2"),
        ("journal_window_ms", "nan", "allowed: 0 to 2"),
        ("journal_window_ms", "inf", "allowed: 0 to 2"),
        ("dispatch_entries_max", "0", "allowed: 1 to"),
        ("dispatch_entries_max", "1.5", "'1.5' is not a whole number"),
        ("dispatch_entries_max", "many", "is not a whole number"),
        ("auto_topic_creation", "1", "neither true nor false"),
        ("schema_strategy", "backward", "schema_strategy is 'backward', allowed: FULL, "),
        ("schema_strategy", "", "schema_strategy is '', allowed: FULL, "),
        ("journal_file_bytes", "5", "read at the start only"),
        ("message_ttl_s", "5", "read at the start only"),
        ("loadFactor", "3", "there is no live setting"),
        ("", "3", "there is no live setting"),
    ],
)
async def test_what_cannot_be_set_is_refused_with_the_reason(
    store: Store, name: str, text: str, reason: str
) -> None:
    settings = LiveSettings(store, config())
    with pytest.raises(ConfigError, match=reason):
        await settings.set(name, text)
    assert await settings.stored() == {}


async def test_what_another_version_stored_is_left_alone(store: Store) -> None:
    await store.commit(
        [
            Put(f"{paths.SETTINGS}dispatch_entries_max", b"12345678901"),
            Put(f"{paths.SETTINGS}from_the_future", b"5"),
            Put(f"{paths.SETTINGS}failover_delay_s", b"2"),
        ]
    )
    mine = config()
    settings = LiveSettings(store, mine)
    await settings.load()
    assert mine.dispatch_entries_max == config().dispatch_entries_max
    assert mine.failover_delay_s == 2
    assert await settings.stored() == {"failover_delay_s": 2.0}


def test_every_live_setting_can_be_set_to_what_it_is_by_default() -> None:
    settings = shown({name: getattr(config(), name) for name in LIVE})
    for name, text in settings.items():
        assert parse(named(name), text) == getattr(config(), named(name))


def test_nothing_that_is_promised_can_be_changed() -> None:
    promised = ("sync", "retention", "ttl", "deduplication", "cursor_interval", "journal_file")
    assert [name for name in LIVE if any(word in name for word in promised)] == []
