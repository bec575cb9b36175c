"""
What docker/compose.yaml adds to jupyterhub_config.py: a container and a network for each user's server.

In the network of a server are, besides itself, the proxy, the Hub and the broker: no other server, no database. The
broker lets it add records and nothing else (kafka_rights.py).
"""

import os
from pathlib import Path

from docker.errors import APIError
from dockerspawner import DockerSpawner

from exec_events.handlers import KafkaEventHandler
from exec_events.hub_login import record_login

PROJECT = os.environ["EXEC_EVENTS_HUB_PROJECT"]
OPEN = os.environ.get("EXEC_EVENTS_HUB_USERS_INTERNET") == "1"
NEIGHBOURS = ("hub", "proxy", "broker")
SECRETS = Path("/run/secrets")


class IsolatedSpawner(DockerSpawner):
    """Starts each server in a network of its own."""

    async def start(self):
        """Make the network, have the neighbours join it, and start the server there."""
        self.network_name = f"{PROJECT}-user-{self.escaped_name}"
        await self._make_network()
        for neighbour in NEIGHBOURS:
            await self._join(neighbour)
        return await super().start()

    async def _make_network(self):
        found = await self.docker("networks", names=[self.network_name])
        if not any(network["Name"] == self.network_name for network in found):
            labels = {"exec-events.user-network": PROJECT}
            await self.docker("create_network", self.network_name, internal=not OPEN, labels=labels)

    async def _join(self, service):
        """Under its own name; after a new start of the neighbour it may have to again."""
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        for container in await self.docker("containers", filters={"label": labels}):
            if self.network_name not in container["NetworkSettings"]["Networks"]:
                try:
                    await self.docker(
                        "connect_container_to_network", container["Id"], self.network_name, aliases=[service]
                    )
                except APIError as error:
                    if error.status_code != 403:  # another start of this user's was faster
                        raise


c = get_config()  # noqa: F821

c.JupyterHub.spawner_class = IsolatedSpawner
c.JupyterHub.bind_url = "http://:8000"
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"
c.JupyterHub.cleanup_servers = False
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://proxy:8001"
c.ConfigurableHTTPProxy.auth_token = (SECRETS / "proxy").read_text()

c.DockerSpawner.image = os.environ["EXEC_EVENTS_HUB_USER_IMAGE"]
c.DockerSpawner.remove = True
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.prefix = PROJECT
c.DockerSpawner.volumes = {f"{PROJECT}-home-{{username}}": "/home/jovyan"}
c.DockerSpawner.read_only_volumes = {f"{PROJECT}_secrets-recorder": "/run/secrets"}
c.DockerSpawner.notebook_dir = "/home/jovyan"
c.DockerSpawner.extra_host_config = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 512,
    "mem_limit": os.environ.get("EXEC_EVENTS_HUB_USER_MEMORY", "2g"),
}

c.EventLogger.handlers = [
    KafkaEventHandler(
        "kafka://broker:19092/jupyterhub",
        name="jupyterhub",
        spool="/srv/jupyterhub/events",
        settings={
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "hub",
            "sasl_plain_password_file": str(SECRETS / "kafka-hub"),
            "create_topics": False,
        },
    )
]
c.Authenticator.post_auth_hook = record_login

# It runs in a container of its own: the Hub only has to know it.
c.JupyterHub.services = [
    {
        "name": "exec-events",
        "url": "http://dashboard:8790",
        "api_token": (SECRETS / "dashboard-token").read_text(),
        "oauth_no_confirm": True,
    }
]
