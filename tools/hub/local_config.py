"""What `make hub` adds to docker/jupyterhub_config.py: all on this machine, servers under their users' accounts."""

import os
import pwd
import secrets
import stat
from pathlib import Path

from exec_events.privacy import load_key

c = get_config()  # noqa: F821

RECORDS = Path(os.environ["EXEC_EVENTS_HUB_RECORDS"])
KEYS = Path(os.environ["EXEC_EVENTS_HUB_KEYS"])
NOTEBOOK_KEY = Path(os.environ["EXEC_EVENTS_HUB_STATE"]) / "notebook.key"
RECORDED = list(c.Spawner.args)

c.JupyterHub.bind_url = os.environ["EXEC_EVENTS_HUB_BIND_URL"]
c.JupyterHub.hub_bind_url = os.environ["EXEC_EVENTS_HUB_HUB_URL"]
c.ConfigurableHTTPProxy.api_url = os.environ["EXEC_EVENTS_HUB_PROXY_API_URL"]
c.ConfigurableHTTPProxy.command = [os.environ["EXEC_EVENTS_HUB_PROXY_COMMAND"]]
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"


def write(path, text, owner=-1):
    """A file of mode 0600, whole or not at all; what was there is no longer looked at."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        os.fchown(file.fileno(), owner, -1)
    draft.replace(path)


def prepare(spawner):
    """A spool that is the user's alone, and a copy of the key of notebooks: in folders that they cannot change."""
    account = pwd.getpwnam(spawner.user.name)
    spool, key = RECORDS / account.pw_name, KEYS / account.pw_name
    if not spool.exists():
        spool.mkdir(mode=0o700)
        os.chown(spool, account.pw_uid, account.pw_gid)
    there = spool.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != account.pw_uid:
        raise RuntimeError(f"{spool} is not a folder of {account.pw_name}'s")
    write(key, NOTEBOOK_KEY.read_text(), account.pw_uid)
    spawner.args = [*RECORDED, f"--ExecEvents.spool={spool}", f"--ExecEvents.pseudonym_key_file={key}"]


load_key(NOTEBOOK_KEY)
c.Spawner.pre_spawn_hook = prepare
