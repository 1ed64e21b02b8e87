"""From settings to ways to log in."""

from pathlib import Path

from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.providers import authenticator, known
from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metrics import Metrics
from tests.access.conftest import SECRET, token


async def test_the_settings_become_ways_to_log_in(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "passwords").write_text("anna:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=\n")
    (tmp_path / "revoked").write_text("role clara\n")
    config = BrokerConfig(
        data=tmp_path,
        authentication="token basic tls",
        token_secret_key=str(tmp_path / "key"),
        basic_file=str(tmp_path / "passwords"),
        token_revocations=str(tmp_path / "revoked"),
        superuser_roles="root admin",
        anonymous_role="guest",
        metrics_roles="monitor",
    )
    ways = authenticator(config, Path.read_bytes, SystemClock(), Metrics())
    assert len(ways.challenges) == 2
    for credentials, role in (
        (Credentials("token", token("berta").encode()), "berta"),
        (Credentials("basic", b"anna:hello"), "anna"),
        (Credentials("", common_name="dora"), "dora"),
        (Credentials(""), "guest"),
    ):
        assert (await ways.authenticate(credentials)).role == role
    assert known(config).superusers == {"root", "admin"}
    assert known(config).watchers == {"monitor"}
