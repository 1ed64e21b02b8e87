"""What a client shows, what it does not let out, and how trouble is told."""

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from magnetar.client.credentials import Credentials, CredentialsError, tls_trouble


def token(**claims: Any) -> str:
    parts = [{"alg": "HS256"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts]
    return b".".join([*encoded, b"c2lnbmF0dXJl"]).decode()


def test_nothing_is_shown_unless_there_is_something() -> None:
    assert Credentials().header() is None
    assert Credentials().of_official_client() == {"tls_validate_hostname": True}


def test_a_token_goes_before_a_password() -> None:
    assert Credentials(token="a.b.c", basic="u:p").header() == "Bearer a.b.c"
    assert Credentials(basic="u:p").header() == "Basic dTpw"


def test_a_token_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    credentials = Credentials(token_file=file)
    assert credentials.header() == "Bearer a.b.c"
    file.write_text("d.e.f")
    assert credentials.header() == "Bearer d.e.f"


def test_host_names_are_always_checked() -> None:
    context = Credentials().tls()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_what_is_secret_is_in_no_text(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hidden")
    for each in (Credentials(token="hidden"), Credentials(basic="hidden:hidden")):
        assert "hidden" not in repr(each)
        assert "hidden" not in str(each)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: Credentials(basic="nobody"),
        lambda folder: Credentials(certificate=folder / "a.pem"),
        lambda folder: Credentials(key=folder / "a.key"),
        lambda folder: Credentials(token="").header(),
        lambda folder: Credentials(token="x" * 20_000).header(),
        lambda folder: Credentials(token="a\nHost: evil").header(),
        lambda folder: Credentials(token_file=folder / "nothing").header(),
        lambda folder: Credentials(token_file=folder / "binary").header(),
        lambda folder: Credentials(trust=folder / "nothing").tls(),
        lambda folder: Credentials(trust=folder / "binary").tls(),
        lambda folder: Credentials(certificate=folder / "binary", key=folder / "binary").tls(),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(tmp_path: Path, make: Any) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialsError):
        make(tmp_path)


def test_it_is_told_when_a_token_ended() -> None:
    assert Credentials(token=token(exp=1_000)).expired_ms(2_000_000) == 1_000_000
    assert Credentials(token=token(exp=3_000)).expired_ms(2_000_000) is None
    for odd in (token(), token(exp=True), token(exp="x"), token(exp=-1), "a.b", "a.!.c", "a.W10.c"):
        assert Credentials(token=odd).expired_ms(2_000_000) is None


def test_trouble_with_a_certificate_says_what_to_do() -> None:
    def failed(code: int) -> ssl.SSLCertVerificationError:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_code, error.verify_message = code, "why"
        return error

    told = [" ".join(tls_trouble(failed(code), "broker.example")) for code in (62, 64, 10, 19, 20)]
    assert all("not for broker.example" in each for each in told[:2])
    assert "expired" in told[2]
    assert all("--tls-trust-certs" in each for each in told[3:])
