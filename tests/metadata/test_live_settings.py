"""Settings of a running broker: bounded, durable, the same in all processes."""

import asyncio
from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import LIVE, MIB, BrokerConfig, ConfigError
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.live_settings import WAITING_MAX, LiveSettings, TooManyChangesError
from magnetar.broker.metadata.setting_values import named, parse, shown
from magnetar.broker.metadata.store import Put, Store
from magnetar.broker.metadata.turning import By
from tests.waiting import until


def config(**settings: object) -> BrokerConfig:
    return BrokerConfig(data=Path("data"), **settings)  # type: ignore[arg-type]


async def test_a_change_holds_at_once_and_after_a_restart(store: Store) -> None:
    mine = config(dispatch_entries_max=50)
    settings = LiveSettings(store, mine)
    told: list[int] = []
    settings.when_changed = lambda _: told.append(mine.dispatch_entries_max)
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
        ("journal_window_ms", "20.5", "journal_window_ms is 20.5, allowed: 0 to 20"),
        ("journal_window_ms", "nan", "allowed: 0 to 20"),
        ("journal_window_ms", "inf", "allowed: 0 to 20"),
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
        assert parse(name, text) == getattr(config(), named(name))


def test_nothing_that_is_promised_can_be_changed() -> None:
    promised = (
        "sync",
        "retention",
        "message_ttl",
        "deduplication",
        "cursor_interval",
        "journal_file",
    )
    assert [name for name in LIVE if any(word in name for word in promised)] == []


# --- who set it ---------------------------------------------------------------------------


async def test_what_people_set_is_kept_below_what_an_operator_sets(store: Store) -> None:
    clock = ManualClock()
    mine = config()
    settings = LiveSettings(store, mine, clock=clock)
    await settings.set("dispatch_entries_max", "400", who="ada")
    await settings.set("dispatch_entries_max", "500", By.OPERATOR, "pilot")
    await settings.load()
    assert mine.dispatch_entries_max == 500
    standing = await settings.standing()
    assert standing.hand["dispatch_entries_max"] == (400, "ada", clock.wall_ms())
    assert standing.operator["dispatch_entries_max"] == (500, "pilot", clock.wall_ms())
    again = config()
    after = LiveSettings(store, again, clock=clock)
    await after.load()
    assert again.dispatch_entries_max == 500
    await after.hand_back()
    await after.load()
    assert again.dispatch_entries_max == 400
    await after.unset("dispatch_entries_max")
    assert await after.stored() == {}


async def test_what_people_set_ends_what_an_operator_had_set(store: Store) -> None:
    settings = LiveSettings(store, config(), clock=ManualClock())
    await settings.set("dispatch_entries_max", "500", By.OPERATOR)
    await settings.set("dispatch_entries_max", "700")
    standing = await settings.standing()
    assert standing.operator == {}
    assert standing.value("dispatch_entries_max") == 700


async def test_an_operator_is_held_to_its_bounds_steps_and_pauses(store: Store) -> None:
    clock = ManualClock()
    settings = LiveSettings(store, config(), clock=clock, memory_bytes=2048 * MIB)
    for name, text, reason in (
        ("dispatch_entries_max", "2000", "an operator may set 1 to 1000"),
        ("dispatch_entries_max", "400", "too far for one step of an operator: 500 to 1000"),
        ("journal_window_ms", "1.5", "too far for one step of an operator: 0 to 1"),
        ("journal_window_ms", "20", "an operator may set 0 to 2"),
        ("write_cache_bytes_max", str(1024 * MIB), "an operator may set 1.67772e"),
        ("auto_topic_creation", "false", "not for an operator"),
        ("disk_used_percent_readonly", "96", "not for an operator"),
        ("offload_threshold_bytes", "5", "not built yet"),
        ("tenant_publish_rate_bytes_max", "5", "PUT /admin/v2/resourcegroups"),
    ):
        with pytest.raises(ConfigError, match=reason):
            await settings.set(name, text, By.OPERATOR)
    await settings.set("journal_window_ms", "1", By.OPERATOR)
    clock.advance(0.5)
    with pytest.raises(ConfigError, match=r"waits 1 s between two changes, another 0\.5 s"):
        await settings.set("journal_window_ms", "2", By.OPERATOR)
    clock.advance(0.5)
    await settings.set("journal_window_ms", "2", By.OPERATOR)
    assert await settings.stored() == {"journal_window_ms": 2.0}


async def test_an_operator_comes_back_to_its_bounds_from_beyond(store: Store) -> None:
    settings = LiveSettings(store, config(), clock=ManualClock())
    await settings.set("journal_window_ms", "20")
    with pytest.raises(ConfigError, match="too far"):
        await settings.set("journal_window_ms", "0.5", By.OPERATOR)
    await settings.set("journal_window_ms", "2", By.OPERATOR)


async def test_contradictions_are_refused_and_the_way_back_never_is(store: Store) -> None:
    settings = LiveSettings(store, config(), clock=ManualClock(), memory_bytes=2048 * MIB)
    with pytest.raises(ConfigError, match=r"more than 25% of this machine's memory"):
        await settings.set("write_cache_bytes_max", str(1024 * MIB))
    await settings.set("write_cache_bytes_max", str(8 * MIB))
    with pytest.raises(ConfigError, match="write_cache_bytes_max to 16777216 at least"):
        await settings.set("journal_window_bytes", str(4 * MIB))
    await settings.set("write_cache_bytes_max", str(16 * MIB), By.OPERATOR)
    # It would go with what the operator has set, and not with what people have.
    with pytest.raises(ConfigError, match="write_cache_bytes_max to 16777216 at least"):
        await settings.set("journal_window_bytes", str(4 * MIB))
    await settings.hand_back()
    assert await settings.stored() == {"write_cache_bytes_max": 8 * MIB}
    await settings.unset("write_cache_bytes_max")


async def test_pulsars_units_are_understood(store: Store) -> None:
    settings = LiveSettings(store, config())
    await settings.set("managedLedgerCacheSizeMB", "48")
    await settings.set("managedLedgerMaxLedgerRolloverTimeMinutes", "2")
    assert await settings.stored() == {
        "read_cache_bytes_max": 48 * MIB,
        "ledger_age_s_max": 120.0,
    }
    told = shown(await settings.stored())
    assert told["managedLedgerCacheSizeMB"] == "48"
    assert told["managedLedgerMaxLedgerRolloverTimeMinutes"] == "2"


# --- often --------------------------------------------------------------------------------


async def test_a_thousand_changes_at_once_end_with_the_last(store: Store) -> None:
    mine = config()
    settings = LiveSettings(store, mine)
    applied: list[int] = []
    settings.when_changed = lambda _: applied.append(mine.dispatch_entries_max)
    settings.watch()
    wishes = [settings.set("dispatch_entries_max", str(1 + n)) for n in range(1000)]
    await asyncio.gather(*wishes)
    assert await settings.stored() == {"dispatch_entries_max": 1000}
    await until(lambda: mine.dispatch_entries_max == 1000)
    assert len(applied) < 20, "every one of them was applied"


async def test_of_changes_at_the_same_time_each_is_judged_for_itself(store: Store) -> None:
    settings = LiveSettings(store, config())
    outcomes = await asyncio.gather(
        settings.set("dispatch_entries_max", "5"),
        settings.set("dispatch_entries_max", "0"),
        settings.set("failover_delay_s", "3"),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes] == [type(None), ConfigError, type(None)]
    assert await settings.stored() == {"dispatch_entries_max": 5, "failover_delay_s": 3.0}


async def test_more_changes_than_anybody_means_are_refused(store: Store) -> None:
    settings = LiveSettings(store, config())
    outcomes = await asyncio.gather(
        *(settings.set("dispatch_entries_max", "5") for _ in range(WAITING_MAX + 1)),
        return_exceptions=True,
    )
    assert outcomes.count(None) == WAITING_MAX
    assert [type(each) for each in outcomes if each] == [TooManyChangesError]
    await settings.set("dispatch_entries_max", "6")


async def test_two_processes_change_settings_at_the_same_time(store: Store) -> None:
    first, second = LiveSettings(store, config()), LiveSettings(store, config())
    await asyncio.gather(
        *(
            each.set(name, str(10 + n))
            for n in range(50)
            for each, name in (
                (first, "dispatch_entries_max"),
                (second, "round_robin_entries_max"),
            )
        )
    )
    assert await first.stored() == {"dispatch_entries_max": 59, "round_robin_entries_max": 59}


async def test_a_bare_value_of_an_older_version_still_holds(store: Store) -> None:
    await store.commit([Put(f"{paths.SETTINGS}dispatch_entries_max", b"12")])
    await store.commit([Put(f"{paths.SETTINGS}schema_strategy", b'"BACKWARD"')])
    settings = LiveSettings(store, config())
    standing = await settings.standing()
    assert standing.hand["dispatch_entries_max"] == (12, "", 0)
    assert standing.hand["schema_strategy"].value == "BACKWARD"
