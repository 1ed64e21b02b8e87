"""A TOML file, then the environment, then flags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.config import BrokerConfig
from magnetar.cli.settings import SettingsError, kinds_of, merge

OPTIONS: dict[str, type] = {"data": str, "workers": int, "insecure": bool}
SETTINGS: dict[str, type] = {"journal_window_ms": float, "deduplication": bool, "cluster": str}
FILE = """
workers = 2
data = "/in/file"
[settings]
journal_window_ms = 1
cluster = "file"
[listeners]
outside = "broker.example"
"""


def test_flags_beat_the_environment_and_the_environment_beats_the_file() -> None:
    environment = {"MAGNETAR_WORKERS": "3", "MAGNETAR_DATA": "/in/environment", "HOME": "/"}
    merged = merge(
        OPTIONS,
        SETTINGS,
        file=FILE,
        environment=environment,
        flags={"workers": "4", "data": None},
    )
    assert merged.options == {"workers": "4", "data": "/in/environment"}
    assert merged.settings == {"journal_window_ms": 1.0, "cluster": "file"}
    assert merged.listeners == {"outside": "broker.example"}


@given(
    st.dictionaries(st.sampled_from(["data"]), st.sampled_from(["a", "b"])),
    st.dictionaries(st.sampled_from(["data"]), st.sampled_from(["c", "d"])),
    st.dictionaries(st.sampled_from(["data"]), st.sampled_from(["e", None])),
)
def test_merging_agrees_with_three_dictionaries_laid_over_each_other(
    file: dict[str, str], environment: dict[str, str], flags: dict[str, str | None]
) -> None:
    text = "".join(f'{name} = "{value}"\n' for name, value in file.items())
    variables = {f"MAGNETAR_{name.upper()}": value for name, value in environment.items()}
    given_flags = {name: value for name, value in flags.items() if value is not None}
    merged = merge(OPTIONS, SETTINGS, file=text, environment=variables, flags=flags)
    assert merged.options == {**file, **environment, **given_flags}


def test_the_environment_sets_every_kind_of_value() -> None:
    environment = {
        "MAGNETAR_JOURNAL_WINDOW_MS": "0.5",
        "MAGNETAR_DEDUPLICATION": "on",
        "MAGNETAR_INSECURE": "false",
        "MAGNETAR_WORKERS": "auto",
        "MAGNETAR_LISTENERS": "a=one,b=two",
    }
    merged = merge(OPTIONS, SETTINGS, environment=environment)
    assert merged.settings == {"journal_window_ms": 0.5, "deduplication": True}
    assert merged.options == {"insecure": False, "workers": "auto"}
    assert merged.listeners == {"a": "one", "b": "two"}


def test_variables_that_mean_nothing_are_named_but_not_those_of_other_commands() -> None:
    environment = {"MAGNETAR_WORKRES": "2", "MAGNETAR_URL": "pulsar://x", "MAGNETARX": "1"}
    assert merge(OPTIONS, SETTINGS, environment=environment).unknown_variables == (
        "MAGNETAR_WORKRES",
    )


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("workers = ", "is no TOML"),
        ("workres = 2", "unknown setting workres in the settings file, did you mean workers"),
        ('workers = "two"', "workers in the settings file is 'two', expected a whole number"),
        ("workers = true", "expected a whole number"),
        ("insecure = 1", "expected true or false"),
        ("settings = 3", "is no table"),
        ("[settings]\nworkers = 2", "unknown setting workers"),
        ("[listeners]\na = 1", "expected name = address"),
        ("listeners = 1", "expected name = address"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_the_reason(file: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        merge(OPTIONS, SETTINGS, file=file)


@pytest.mark.parametrize(
    ("variable", "text"),
    [("WORKERS", "many"), ("JOURNAL_WINDOW_MS", "fast"), ("DEDUPLICATION", "perhaps")],
)
def test_a_variable_that_makes_no_sense_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"MAGNETAR_{variable} is '{text}', expected"):
        merge(OPTIONS, SETTINGS, environment={f"MAGNETAR_{variable}": text})


def test_every_number_of_the_broker_config_can_be_set() -> None:
    kinds = kinds_of(BrokerConfig.__dataclass_fields__, leave_out={"worker", "workers"})
    assert kinds["journal_window_ms"] is float
    assert kinds["auto_topic_creation"] is bool
    assert "worker" not in kinds
    assert set(BrokerConfig.__dataclass_fields__) - set(kinds) == {"data", "worker", "workers"}
