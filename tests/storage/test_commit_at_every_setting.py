"""Whatever live setting is turned, and however far: a receipt comes after the sync, never before.

Every setting is put to both of its bounds, on a disk that records what is durable. At each
receipt the power is cut on a copy of that disk; what was acknowledged must come back from it.
"""

import pytest

from magnetar.broker.clock import SystemClock
from magnetar.broker.config import LIVE, MIB
from magnetar.broker.metadata.live_settings import LiveSettings
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.setting_values import text_of
from tests.storage.disk import SimulatedDisk, disk_of
from tests.storage.rig import Rig, inline_pools, small_config


def bounds(name: str) -> tuple[str, str]:
    """Return both ends of what a live setting may be."""
    metadata = LIVE[name]
    if "words" in metadata:
        return metadata["words"][0], metadata["words"][-1]
    if "low" not in metadata:
        return "false", "true"
    return text_of(metadata["low"]), text_of(metadata["high"])


def turns() -> list[dict[str, str]]:
    """Return each setting at each of its bounds, and all at once."""
    found = [{name: value} for name in LIVE for value in bounds(name)]
    # One of them alone would contradict the other.
    found.remove({"disk_used_percent_readonly": "1"})
    found.remove({"disk_used_percent_warn": "100"})
    together = [
        {name: bounds(name)[end] for name in sorted(LIVE, reverse=not end)} for end in (0, 1)
    ]
    return [*found, *together]


async def receipts_lost(turned: dict[str, str], *, sync: bool = True) -> int:
    """Publish with these settings; return how many entries were acknowledged and are not there."""
    disk = SimulatedDisk()
    config = small_config(write_cache_bytes_max=64 * MIB)
    rig = Rig(disk, config, threaded=True, pools=inline_pools())
    rig.ledgers._clock = SystemClock()
    await rig.recover()
    disk.skip_sync = not sync
    settings = LiveSettings(MemoryStore(), config)
    for name, value in turned.items():
        await settings.set(name, value)
    await settings.load()
    rig.ledgers.settings_changed()
    rig.create(1, 2)
    lost = 0
    for _ in range(3):
        rig.append((1, 3), (2, 1))
        await rig.settle()
        assert rig.acknowledged == rig.appended
        lost += await lost_by_a_power_cut(disk, rig)
    rig.abandon()
    return lost


async def lost_by_a_power_cut(disk: SimulatedDisk, rig: Rig) -> int:
    durable = {name: bytes(inode.durable) for name, inode in disk.durable_names.items()}
    again = Rig(disk_of(durable, disk.folders), small_config())
    await again.recover()
    return sum([end - await again.check(ledger) for ledger, end in rig.acknowledged.items()])


@pytest.mark.parametrize("turned", turns(), ids=lambda turned: str(turned)[:60])
async def test_no_receipt_comes_before_its_sync(turned: dict[str, str]) -> None:
    assert await receipts_lost(turned) == 0


async def test_a_sync_left_out_would_be_noticed() -> None:
    assert await receipts_lost({"journal_window_ms": "20"}, sync=False) == 4 + 8 + 12
