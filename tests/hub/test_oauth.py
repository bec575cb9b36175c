"""Logins in the configuration of a Hub, those of docs/jupyterhub.md among them: settings that exist, and nobody let in unnamed."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jupyterhub.app import JupyterHub
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "docker" / "jupyterhub_config.py"
OAUTH = re.compile(r"^<!-- oauth -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = OAUTH.findall((REPOSITORY / "docs" / "jupyterhub.md").read_text(encoding="utf-8"))


def loaded(folder: Path, snippet: str, monkeypatch: pytest.MonkeyPatch, users: str = "ada") -> Config:
    """The whole configuration of a Hub with this file behind it."""
    (folder / "oauth-secret").write_text("the secret\n")
    (folder / "site.py").write_text(snippet)
    for name, value in {
        "STATE": folder,
        "STORE": "sqlite:///t.db",
        "USERS": users,
        "CONFIG": folder / "site.py",
    }.items():
        monkeypatch.setenv(f"EXEC_EVENTS_HUB_{name}", str(value))
    return PyFileConfigLoader(CONFIG.name, path=str(CONFIG.parent)).load_config()


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_login_is_configured(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each snippet makes its provider's authenticator, whose every setting is a trait of its, with the secret and who may log in."""
    config = loaded(tmp_path, snippet, monkeypatch)
    hub = JupyterHub(config=config)
    authenticator = hub.authenticator_class(config=config)
    section = config[type(authenticator).__name__]
    assert [name for name in section if name not in type(authenticator).class_traits(config=True)] == []
    assert {name: getattr(authenticator, name) for name in section if name != "hosted_domain"} == {
        name: value for name, value in section.items() if name != "hosted_domain"
    }
    assert authenticator.client_secret == "the secret"
    assert authenticator.allowed_users == {"ada"}
    assert not authenticator.allow_all
    assert urlsplit(authenticator.authorize_url).scheme == "https"


def test_three_are_documented() -> None:
    """GitHub, Google and any other provider have a snippet each."""
    assert re.findall(r'authenticator_class = "([\w-]+)"', "".join(SNIPPETS)) == ["github", "google", "generic-oauth"]


@pytest.mark.parametrize("login", ["pam", "firstuse"])
def test_without_names_nobody_is_let_in(login: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that was told no names lets nobody in, whoever the login knows."""
    monkeypatch.setenv("EXEC_EVENTS_HUB_AUTHENTICATOR", login)
    config = loaded(tmp_path, "", monkeypatch, users="")
    authenticator = JupyterHub(config=config).authenticator_class(config=config)
    assert not authenticator.allow_all
    assert not asyncio.run(_answer(authenticator.check_allowed("ada", {"name": "ada"})))


def test_no_login_is_a_dummy() -> None:
    """Nothing that starts a Hub, here or in the documentation, lets people in by a password that is everybody's."""
    folders = [REPOSITORY / name for name in ("docker", "tools/hub", "tests/hub", "benchmarks", "demo", "docs")]
    files = [file for folder in folders for file in folder.rglob("*.*") if file.suffix in (".py", ".md", ".yaml")]
    assert CONFIG in files
    chosen = re.compile(r"""authenticator\w*["']?\s*[=:]\s*["']?[\w.]*dummy|SharedPassword""", re.IGNORECASE)
    assert chosen.search('c.JupyterHub.authenticator_class = "dummy"')
    here = Path(__file__)
    assert [file for file in files if file != here and chosen.search(file.read_text(encoding="utf-8"))] == []


async def _answer(given: Any) -> Any:
    return await given if inspect.isawaitable(given) else given
