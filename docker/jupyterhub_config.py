"""
JupyterHub with the recorder in every user's server: for `make hub`, and for docker/compose.yaml.

What differs from place to place comes from EXEC_EVENTS_HUB_* variables, none of them a secret, and from the files
that EXEC_EVENTS_HUB_CONFIG lists, which have the last word. docs/jupyterhub.md says what each line is for.
"""

import os
import sys
from pathlib import Path

from exec_events.owner_pseudonym import pseudonym_of_spawner
from exec_events.privacy import load_key
from exec_events_schemas.server_label import label_key, label_of_spawner

c = get_config()  # noqa: F821

STATE = Path(os.environ["EXEC_EVENTS_HUB_STATE"])
PYTHON = os.environ.get("EXEC_EVENTS_HUB_PYTHON", sys.executable)
USERS = set(os.environ.get("EXEC_EVENTS_HUB_USERS", "").split())
DASHBOARD_USERS = os.environ.get("EXEC_EVENTS_HUB_DASHBOARD_USERS", "").split()
STORE = os.environ["EXEC_EVENTS_HUB_STORE"]
SOURCE = os.environ.get("EXEC_EVENTS_HUB_SOURCE", "")
SERVER_KEY = Path(os.environ.get("EXEC_EVENTS_HUB_SERVER_KEY", STATE / "servers.key"))
PSEUDONYM_KEY = Path(os.environ.get("EXEC_EVENTS_HUB_PSEUDONYM_KEY", STATE / "pseudonym.key"))

# The Hub's own: made on first start, with mode 0600, in a folder that nobody else may read.
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
c.JupyterHub.db_url = f"sqlite:///{STATE / 'jupyterhub.sqlite'}"
c.JupyterHub.pid_file = str(STATE / "jupyterhub.pid")
c.ConfigurableHTTPProxy.pid_file = str(STATE / "proxy.pid")

# Who may log in, and how they show that it is them.
c.JupyterHub.authenticator_class = os.environ.get("EXEC_EVENTS_HUB_AUTHENTICATOR", "pam")
c.Authenticator.allowed_users = USERS
# FirstUse would take the absence of names for everybody.
c.Authenticator.allow_all = False
c.PAMAuthenticator.service = "jupyterhub"
c.FirstUseAuthenticator.dbm_path = str(STATE / "passwords.dbm")
c.FirstUseAuthenticator.create_users = False
c.FirstUseAuthenticator.check_passwords_on_startup = False

# Users' servers: from an installation that is not theirs (-I: nor anything in their home that is named like a module),
# with no configuration of theirs, and none without a recorder.
c.Spawner.cmd = [PYTHON, "-I", "-m", "jupyterhub.singleuser"]
c.Spawner.disable_user_config = True
c.Spawner.args = [
    "--ServerApp.jpserver_extensions={'exec_events': True}",
    "--ServerApp.reraise_server_extension_failures=True",
    "--ExecEvents.required=True",
]
c.Spawner.default_url = "/lab"
# By its label the dashboard knows of which server a recorder is, and that it should be heard. The key of users'
# pseudonyms stays here: with it in a user's server, the user could find out who is who.
c.Spawner.environment = {
    "EXEC_EVENTS_SERVER_LABEL": label_of_spawner(label_key(SERVER_KEY)),
    "EXEC_EVENTS_OWNER_PSEUDONYM": pseudonym_of_spawner(load_key(PSEUDONYM_KEY)),
}
c.Spawner.start_timeout = 120

# The record in tables, and the pages of them.
c.JupyterHub.services = [
    {
        "name": "exec-events",
        "url": os.environ.get("EXEC_EVENTS_HUB_DASHBOARD_URL", "http://127.0.0.1:8790"),
        "command": [
            PYTHON,
            "-I",
            "-m",
            "exec_events",
            "dashboard",
            "--store",
            STORE,
            "--server-key-file",
            str(SERVER_KEY),
        ],
        "cwd": str(STATE),
        "oauth_no_confirm": True,
    }
]
if SOURCE:
    aggregate = [PYTHON, "-I", "-m", "exec_events", "aggregate", "--from", SOURCE, "--store", STORE]
    c.JupyterHub.services.append({"name": "aggregate", "command": aggregate, "cwd": str(STATE)})
c.JupyterHub.load_roles = [
    {
        "name": "dashboard",
        "description": "Sees the pages of everybody's record",
        "users": DASHBOARD_USERS,
        "scopes": ["access:services!service=exec-events"],
    },
    {
        "name": "silent-recorders",
        "description": "Sees which servers run",
        "services": ["exec-events"],
        "scopes": ["list:users", "read:servers"],
    },
]

for more in filter(None, os.environ.get("EXEC_EVENTS_HUB_CONFIG", "").split(os.pathsep)):
    exec(compile(Path(more).read_text(), more, "exec"))  # noqa: S102
