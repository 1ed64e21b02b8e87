"""Settings are checked once, where they are declared."""

from dataclasses import fields
from pathlib import Path

import pytest

from magnetar.broker.config import BrokerConfig, ConfigError
from tests.tidy.settings_page import descriptions, page


def test_a_value_out_of_bounds_is_refused_with_its_name_and_the_bounds() -> None:
    with pytest.raises(ConfigError, match=r"journal_window_ms is 25, allowed: 0 to 20"):
        BrokerConfig(data=Path("data"), journal_window_ms=25)


def test_bounds_and_values_are_written_as_a_person_would() -> None:
    with pytest.raises(ConfigError) as refused:
        BrokerConfig(data=Path("data"), journal_file_bytes=2**40)
    assert str(refused.value) == (
        "journal_file_bytes is 1099511627776, allowed: 1048576 to 1073741824"
    )
    with pytest.raises(ConfigError, match=r"^disk_used_percent_warn is 0\.3, allowed: 1 to 100$"):
        BrokerConfig(data=Path("data"), disk_used_percent_warn=0.1 + 0.2)


def test_every_default_is_within_its_own_bounds() -> None:
    assert BrokerConfig(data=Path("data")).workers == 1


def test_every_number_has_bounds() -> None:
    unbounded = [
        each.name
        for each in fields(BrokerConfig)
        if each.type in {"int", "float", int, float} and "low" not in each.metadata
    ]
    assert unbounded == []


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, text in descriptions().items() if not text] == []


def test_the_page_of_settings_is_what_the_code_says() -> None:
    written = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    assert written.read_text() == page(), "run tests/tidy/settings_page.py again"


def test_a_word_that_is_none_of_those_allowed_is_refused() -> None:
    assert BrokerConfig(data=Path("/data"), schema_strategy="BACKWARD").schema_strategy
    with pytest.raises(ConfigError, match=r"^schema_strategy is 'full', allowed: FULL, "):
        BrokerConfig(data=Path("/data"), schema_strategy="full")
