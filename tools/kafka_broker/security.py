"""A protocol and users in; the broker's settings, its certificates and a client's settings out."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import BrokerError
from .properties import CLIENT, HOST

Protocol = Literal["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"]

_PACKAGE = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files made for one broker: an authority of its own, and what it signed for the broker and for a client."""

    authority: Path
    broker: Path
    client: Path


def uses_tls(protocol: Protocol) -> bool:
    """Whether clients of this listener need the authority's certificate."""
    return protocol.endswith("SSL")


def uses_sasl(protocol: Protocol) -> bool:
    """Whether clients of this listener have to name themselves."""
    return protocol.startswith("SASL")


def broker_settings(
    protocol: Protocol, mechanisms: Sequence[Mechanism], users: Mapping[str, str], certificates: Certificates | None
) -> dict[str, str]:
    """What the clients' listener needs in server.properties."""
    listener = f"listener.name.{CLIENT.lower()}"
    settings: dict[str, str] = {}
    if certificates is not None:
        settings |= {
            f"{listener}.ssl.keystore.type": "PEM",
            f"{listener}.ssl.keystore.location": str(certificates.broker),
            f"{listener}.ssl.truststore.type": "PEM",
            f"{listener}.ssl.truststore.location": str(certificates.authority),
        }
    if not uses_sasl(protocol):
        return settings
    settings[f"{listener}.sasl.enabled.mechanisms"] = ",".join(mechanisms)
    passwords = "".join(f' user_{name}="{password}"' for name, password in users.items())
    configured = {
        "PLAIN": f"{_PACKAGE}.plain.PlainLoginModule required{passwords};",
        "SCRAM-SHA-512": f"{_PACKAGE}.scram.ScramLoginModule required;",
        # Kafka's own validator for tests takes tokens that nobody signed: see `unsecured_token`.
        "OAUTHBEARER": f"{_PACKAGE}.oauthbearer.OAuthBearerLoginModule required;",
    }
    for mechanism in mechanisms:
        settings[f"{listener}.{mechanism.lower()}.sasl.jaas.config"] = configured[mechanism]
    return settings


def scram_credentials(mechanisms: Sequence[Mechanism], users: Mapping[str, str]) -> list[str]:
    """The arguments of StorageTool's ``format`` that put SCRAM users into the first metadata."""
    if "SCRAM-SHA-512" not in mechanisms:
        return []
    return [f"--add-scram=SCRAM-SHA-512=[name={name},password={password}]" for name, password in users.items()]


def client_settings(
    protocol: Protocol, mechanism: Mechanism | None, user: tuple[str, str] | None, certificates: Certificates | None
) -> dict[str, Any]:
    """kafka-python's settings for this listener; those of OAUTHBEARER lack the token provider."""
    settings: dict[str, Any] = {} if protocol == "PLAINTEXT" else {"security_protocol": protocol}
    if certificates is not None:
        settings["ssl_cafile"] = str(certificates.authority)
    if mechanism is not None:
        settings["sasl_mechanism"] = mechanism
        if mechanism != "OAUTHBEARER" and user is not None:
            settings["sasl_plain_username"], settings["sasl_plain_password"] = user
    return settings


def unsecured_token(subject: str, *, now: float, seconds: float = 3600) -> str:
    """A JWT that nobody signed, for ``subject``, from ``now`` (seconds since 1970) for ``seconds``."""
    claims = {"sub": subject, "iat": now, "exp": now + seconds}
    return f"{_base64({'alg': 'none'})}.{_base64(claims)}."


def _base64(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def make_certificates(directory: Path) -> Certificates:
    """
    The PEM files for one broker, made unless they are there.

    Raises:
        BrokerError: openssl is missing or refused.
    """
    made = Certificates(directory / "authority.pem", directory / "broker.pem", directory / "client.pem")
    if made.client.exists():
        return made
    directory.mkdir(parents=True, exist_ok=True)
    authority_key = directory / "authority.key"
    _openssl("req", "-x509", "-new", "-subj=/CN=test authority", "-out", made.authority, *_new_key(authority_key))
    for file, name in ((made.broker, "broker"), (made.client, "client")):
        key, certificate, request = (directory / f"{name}.{end}" for end in ("key", "crt", "csr"))
        _openssl(
            *("req", "-new", f"-subj=/CN={name}", "-out", request),
            *(f"-addext=subjectAltName=IP:{HOST},DNS:localhost", *_new_key(key)),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-days", "30", "-copy_extensions=copy"),
            *("-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial"),
        )
        file.touch(mode=0o600)
        file.write_text(key.read_text() + certificate.read_text() + made.authority.read_text())
    return made


def _new_key(file: Path) -> tuple[str | Path, ...]:
    # Nodes of one test do not outlive it: no pass phrase, an elliptic curve because it is quick.
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file)


def _openssl(*arguments: str | Path) -> None:
    try:
        done = subprocess.run(
            ["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        raise BrokerError("openssl not found: it makes the broker's certificates; `apt-get install openssl`") from None
    if done.returncode:
        raise BrokerError(f"openssl {arguments[0]} refused: {done.stderr}")


PROTOCOLS: tuple[str, ...] = get_args(Protocol)
