"""Settings of a connection: kafka-python's names, and secrets from files that nobody else can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from exec_events_schemas.errors import SourceError
from exec_events_schemas.kafka_settings import TokenFile, read_settings

SECRET = "hunter2"


def write(path: Path, text: str, mode: int = 0o600) -> str:
    """A file of this mode; its path."""
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(text)
    return str(path)


def test_a_secret_comes_from_its_file(tmp_path: Path) -> None:
    """A name with _file behind it has the file's text as its value, white space around it taken off."""
    path = write(tmp_path / "password", f"{SECRET}\n")
    given = {"sasl_plain_username": "jo", "sasl_plain_password_file": path}
    assert read_settings(given) == {"sasl_plain_username": "jo", "sasl_plain_password": SECRET}


def test_names_of_kafka_pythons_own_files_are_left_alone(tmp_path: Path) -> None:
    """ssl_cafile and its like are paths, for kafka-python to read."""
    assert read_settings({"ssl_cafile": "ca.pem"}) == {"ssl_cafile": "ca.pem"}


def test_a_settings_file_is_read_and_overruled(tmp_path: Path) -> None:
    """settings_file brings more settings, which those given win over; a secret in it makes it private."""
    path = write(tmp_path / "kafka.toml", f'security_protocol = "SASL_SSL"\nsasl_plain_password = "{SECRET}"\n')
    found = read_settings({"settings_file": path, "security_protocol": "SSL"})
    assert found == {"security_protocol": "SSL", "sasl_plain_password": SECRET}


@pytest.mark.parametrize(
    ("text", "mode", "because"),
    [
        (f'sasl_plain_password = "{SECRET}"', 0o644, "others can read it"),
        (f"sasl_plain_password = {SECRET}", 0o600, "is not TOML"),
        ('settings_file = "another"', 0o600, "names another"),
    ],
)
def test_settings_files_that_cannot_be(tmp_path: Path, text: str, mode: int, because: str) -> None:
    """A file that others can read a secret in, that is no TOML or leads on is refused, without the secret."""
    with pytest.raises(SourceError, match=because) as refused:
        read_settings({"settings_file": write(tmp_path / "kafka.toml", text, mode)})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "mode", "because"), [(SECRET, 0o640, "others can read it"), (" \n", 0o600, "is empty")]
)
def test_secrets_that_cannot_be(tmp_path: Path, text: str, mode: int, because: str) -> None:
    """A secret that others can read, and one that is none, are refused."""
    with pytest.raises(SourceError, match=because) as refused:
        read_settings({"sasl_plain_password_file": write(tmp_path / "password", text, mode)})
    assert SECRET not in str(refused.value)


def test_a_missing_file_is_told() -> None:
    """A file that is not there is named."""
    with pytest.raises(SourceError, match="'nowhere' cannot be read"):
        read_settings({"ssl_password_file": "nowhere"})


def test_a_token_is_read_anew(tmp_path: Path) -> None:
    """The provider of a token's file gives what is in it at the time it is asked."""
    path = tmp_path / "token"
    provider = read_settings({"sasl_oauth_token_file": write(path, "first")})["sasl_oauth_token_provider"]
    assert isinstance(provider, TokenFile)
    assert (provider.token(), provider.extensions()) == ("first", {})
    path.write_text("second")
    assert provider.token() == "second"


def test_a_provider_is_loaded_by_name() -> None:
    """A token provider may be a class by its name; one that cannot be loaded is told."""
    assert read_settings({"sasl_oauth_token_provider": "builtins:dict"})["sasl_oauth_token_provider"] == {}
    with pytest.raises(SourceError, match="cannot load the token provider"):
        read_settings({"sasl_oauth_token_provider": "nowhere:Nothing"})


def test_a_protocol_that_is_none_is_refused() -> None:
    """A security_protocol that kafka-python would take for plain text is refused, with those there are."""
    with pytest.raises(SourceError, match="SASL_SSL, not 'TLS'"):
        read_settings({"security_protocol": "TLS"})
