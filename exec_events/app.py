"""The server extension: what an admin can set, and how the parts are put together."""

from __future__ import annotations

import asyncio
import functools
import getpass
import os
import platform
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Dict, Enum, Float, Int, List, Unicode, default

from exec_events_schemas.record import canonical
from exec_events_schemas.server_label import ENVIRONMENT as LABEL_ENVIRONMENT

from . import __version__, interrupt, owner_pseudonym, paths
from .answers import Answers, Site
from .api_handlers import default_handlers
from .clock import now_us, rfc3339
from .consent import Consents, consent_text
from .deliver import Deliverer
from .describe import Describer, LastRuns
from .emit import Emitter
from .errors import ConfigurationError
from .hashing import Hasher, key_id
from .health import Health
from .keep import Keeper, Retention
from .listeners import ListenerThread, registered_listeners
from .metrics import RecorderCollector
from .notebook_actions import SCHEMA_ID as NOTEBOOK_ACTION
from .notebook_actions import NotebookActions
from .privacy import Pseudonyms, load_key, read_key
from .recorder import Recorder, Settings
from .sinks import name_of
from .spool import REQUIRED_WINDOW_SECONDS, WINDOW_SECONDS, Spool
from .watch.execution import Identity
from .watch.in_process import current_user


class ExecEvents(ExtensionApp):
    """Records every execution of every kernel of this server."""

    name = "exec_events"
    description = "A tamper-evident record of every execution of every kernel of this server."

    identity = Enum(
        ["pseudonym", "plain"],
        default_value="pseudonym",
        help="What stands for users and notebook paths in events: pseudonyms under the site's key, or the plain names.",
    ).tag(config=True)

    subjects = Enum(
        ["auto", "request", "account"],
        default_value="auto",
        help="""Who a subject is: the authenticated user of each request, or the account the server runs under.
        "auto" takes the account where the server's own token or password is all that authenticates (its users are
        anonymous, with a new random name for each browser), and the user of the request everywhere else.""",
    ).tag(config=True)

    contents = Enum(
        ["none", "code", "code+outputs"],
        default_value="none",
        help="Which bodies are kept in the spool beside the events. Events themselves never hold code or outputs.",
    ).tag(config=True)

    required = Bool(
        False,
        help="""Run nothing that cannot be recorded: a request that comes through this server is durable on disk before
        its kernel sees it, or is refused. A client that connects to a kernel directly by ZeroMQ is recorded but not
        stopped.""",
    ).tag(config=True)

    mode = Enum(
        ["audit", "consent"],
        default_value="audit",
        help="""Whether everybody is recorded, and told so (audit), or only who has agreed, from then on and until they
        withdraw (consent). In both, what is recorded of somebody is the same.""",
    ).tag(config=True)

    consent_version = Unicode(
        "1",
        help="The version of the text people agree to; with another version, or another text, they are asked again.",
    ).tag(config=True)

    consent_text = Unicode(
        "", help="What people agree to, as plain text. Without one, a text that says what these settings record."
    ).tag(config=True)

    consent_file = Unicode("", help="A file that holds that text, UTF-8, instead of `consent_text`.").tag(config=True)

    actions = Bool(
        False,
        help="""Take notebook_action events from browsers: a notebook opened, saved, its cells added, moved, looked at.
        They are the browser's word, and bounded in number.""",
    ).tag(config=True)

    deliver_to = List(
        Unicode(),
        help='Where records are delivered to, as URLs of sinks, for example ["file:///var/log/exec-events.jsonl"].',
    ).tag(config=True)

    sink_settings = Dict(
        help="""Settings of sinks, by the scheme of their URL or by the whole name of one, for example
        {"kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "jupyter",
        "sasl_plain_password_file": "/etc/exec-events/kafka-password"}}. For Kafka they are kafka-python's own, and
        "<name>_file" reads one from a file, so that no password stands here.""",
    ).tag(config=True)

    listeners = List(
        Unicode(),
        help="""Functions to call with each sealed event, as "package.module:function"; those that installed packages
        register as entry points exec_events.listeners are called too.""",
    ).tag(config=True)

    listener_timeout = Float(5.0, help="How long a listener may take for one event, in seconds.").tag(config=True)

    spool = Unicode(
        "",
        help="""The folder of the spool; by default exec-events in Jupyter's data directory. Best on a local disk: on a
        network file system it is slower.""",
    ).tag(config=True)

    spool_max_bytes = Int(
        0,
        help="""The size at which this server's spool file counts as full, in bytes; 0 for the disk's own. From 80 % on
        there are warnings; at the cap nothing more is recorded, and in required mode nothing more runs.""",
    ).tag(config=True)

    retention_days = Float(
        30.0, help="How long delivered records stay in the spool, in days; 0 for ever. Records no sink has taken stay."
    ).tag(config=True)

    retention_bytes = Int(
        0, help="How large a spool file may grow before delivered records are cut from its front; 0 for no limit."
    ).tag(config=True)

    heartbeat_seconds = Float(60.0, help="How often the recorder seals that it is alive, in seconds.").tag(config=True)

    server_label = Unicode(
        help="""What the site calls this server, for whoever has to know when its recorder falls silent; a JupyterHub
        gives it in EXEC_EVENTS_SERVER_LABEL."""
    ).tag(config=True)

    @default("server_label")
    def _default_server_label(self) -> str:
        return os.environ.get(LABEL_ENVIRONMENT, "")

    stop_seconds = Float(10.0, help="How long a stop may wait for the sinks, in seconds.").tag(config=True)

    pseudonym_key_file = Unicode(
        "", help="The key of the site's pseudonyms (64 hexadecimal digits, mode 0600); made on first start."
    ).tag(config=True)

    owner_pseudonym = Unicode(
        help="""The pseudonym of the user whose server this is, made by who keeps the key of users' pseudonyms; a
        JupyterHub gives it in EXEC_EVENTS_OWNER_PSEUDONYM. The key here is then for notebooks and other users."""
    ).tag(config=True)

    @default("owner_pseudonym")
    def _default_owner_pseudonym(self) -> str:
        return os.environ.get(owner_pseudonym.ENVIRONMENT, "")

    hash_key_file = Unicode(
        "",
        help="""A key for the hashes of code and outputs (64 hexadecimal digits, mode 0600): with one, they cannot be
        guessed by hashing likely code. Without one they are plain SHA-256.""",
    ).tag(config=True)

    trust = "server"

    def initialize_settings(self) -> None:
        """Put the parts together and watch the kernel manager; nothing that fails here stops the server."""
        self.recorder: Recorder | None = None
        self.answers: Answers | None = None
        self._problems: list[str] = []
        # A stop that comes while the start still adopts must not seal the chain's end before its beginning.
        self._turn = asyncio.Lock()
        self._deliverers: list[Deliverer] = []
        self._listeners: list[ListenerThread] = []
        self.settings["exec_events"] = self
        self._collector = RecorderCollector(self._health)
        self._collector.register()
        try:
            self._put_together()
        except Exception as error:
            self._cannot_start(error)

    def initialize_handlers(self) -> None:
        """Add the routes."""
        self.handlers.extend(default_handlers)

    def _put_together(self) -> None:
        server = self.serverapp
        assert server is not None, "jupyter_server links an extension before it initialises it"
        folder = Path(self.spool) if self.spool else paths.spool_folder()
        recorder_id, started_at = str(uuid.uuid4()), rfc3339(now_us())
        consents = self._consents(folder)
        self._spool = Spool(
            folder,
            recorder_id,
            self.log,
            started_at=started_at,
            max_bytes=self.spool_max_bytes,
            window_seconds=REQUIRED_WINDOW_SECONDS if self.required else WINDOW_SECONDS,
        )
        self._keys = (self._pseudonym_key(), self._hash_key())
        pseudonyms, hasher = self._pseudonyms(self._keys[0]), Hasher(self._keys[1])
        describer = Describer(recorder_id, self.trust, pseudonyms, hasher, LastRuns())
        assert server.event_logger is not None, "a server has its event logger before its extensions"
        self._emitter = Emitter(server.event_logger, self.log)
        self._emitter.install()
        settings = Settings(
            required=self.required,
            contents=self.contents,
            subjects=self.subjects,
            account=server_account(),
            # The stock providers authenticate a token or a password; who holds it has no name.
            anonymous=type(server.identity_provider).__module__ == "jupyter_server.auth.identity",
            heartbeat_seconds=self.heartbeat_seconds,
            server_label=self.server_label,
        )
        for url in self.deliver_to:
            self._deliver(url)
        for name in dict.fromkeys([*self.listeners, *registered_listeners()]):
            self._listen(name)
        self._spool.start()
        recorder = self.recorder = Recorder(
            settings, describer, self._emitter, self._spool, server.kernel_manager, self.log, consents
        )
        if self.actions:
            door = NotebookActions(
                describer, recorder.permissions, lambda: self.who(current_user()), recorder.browser_said
            )
            self._emitter.open_door(NOTEBOOK_ACTION, door)
        self.recorder.tap_manager()
        self._follow_sessions(server.session_manager)
        self._keeper = Keeper(
            folder,
            self._spool,
            self.recorder,
            self._emitter,
            self._deliverers,
            Retention(self.retention_days, self.retention_bytes),
            self.heartbeat_seconds,
            self.trust,
            self.log,
            permissions=recorder.permissions,
        )
        self.answers = Answers(self._site(), recorder, consents, folder, pseudonyms, hasher, started_at, self._health)

    def _consents(self, folder: Path) -> Consents | None:
        """In mode consent, where people's answers are kept; what is said wrongly must not record anybody."""
        if self.mode == "audit":
            return None
        text = consent_text(self.consent_version, self.consent_text, self.consent_file, self.contents)
        return Consents(folder, text)

    def _site(self) -> Site:
        return Site(self.mode, self.identity, self.contents, self.required, self.retention_days, self.actions)

    def _pseudonym_key(self) -> bytes | None:
        if self.identity == "plain":
            return None
        return load_key(Path(self.pseudonym_key_file) if self.pseudonym_key_file else paths.key_file())

    def _pseudonyms(self, key: bytes | None) -> Pseudonyms:
        """Plain names are for everybody, also where somebody gave the owner a pseudonym."""
        return Pseudonyms(key, owner_pseudonym.given(self.owner_pseudonym, os.environ) if key else {})

    def _hash_key(self) -> bytes | None:
        return read_key(Path(self.hash_key_file)) if self.hash_key_file else None

    def _deliver(self, url: str) -> None:
        name = name_of(url)
        if any(deliverer.name == name for deliverer in self._deliverers):
            self._problem(f"two sinks have the name {name}, by which the spool knows them; the second is left out")
            return
        settings = self.sink_settings.get(name, self.sink_settings.get(url.partition(":")[0].lower(), {}))
        deliverer = Deliverer(url, self.log, settings=settings)
        deliverer.add(self._spool)
        self._deliverers.append(deliverer)

    def _listen(self, name: str) -> None:
        try:
            listener = ListenerThread(name, self.listener_timeout, self.log)
        except ConfigurationError as error:
            self._problem(str(error))
            return
        self._listeners.append(listener)
        self._spool.observers.append(listener.committed)
        listener.start()

    def _follow_sessions(self, sessions: Any) -> None:
        """Learn which notebook a kernel serves, and when it is renamed."""
        recorder = self.recorder
        assert recorder is not None

        def following(original: Any) -> Any:
            @functools.wraps(original)
            async def changed(session_id: str, *args: Any, **kwargs: Any) -> Any:
                result = await original(session_id, *args, **kwargs)
                try:
                    model = await sessions.get_session(session_id=session_id)
                    recorder.session_named(model["kernel"]["id"], str(model["path"]))
                except Exception:
                    recorder.trouble("a session")
                return result

            return changed

        sessions.save_session = following(sessions.save_session)
        sessions.update_session = following(sessions.update_session)

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Once every extension is loaded and the loop runs: tap the clients, adopt, and begin the chain."""
        interrupt.as_terminate()
        async with self._turn:
            if self.recorder is None:
                return
            try:
                self.recorder.tap_clients(serverapp.web_app.settings)
                for deliverer in self._deliverers:
                    deliverer.start()
                await self._keeper.start(self._versions(), self._digest())
            except Exception as error:
                self._cannot_start(error)

    def _cannot_start(self, error: Exception) -> None:
        """Go on without a record, and say so everywhere; in required mode end the server."""
        self.recorder = self.answers = None
        self._problem(f"nothing is recorded: {error}")
        self.log.exception("exec-events: cannot start")
        if self.required:
            # jupyter_server would only log an Exception of an extension and serve without it.
            raise SystemExit("exec-events: c.ExecEvents.required is set and nothing can be recorded; see above")

    async def stop_extension(self) -> None:
        """Close what is open, seal the end, deliver what is left, and let go."""
        self._collector.unregister()
        async with self._turn:
            if self.recorder is None:
                return
            recorder, self.recorder, self.answers = self.recorder, None, None
        # First, so that no heartbeat or cut comes after the recorder's last word.
        await self._keeper.stop()
        await recorder.stop()
        await asyncio.gather(*(asyncio.to_thread(d.stop, self.stop_seconds) for d in self._deliverers))
        await self._keeper.close()
        await asyncio.gather(*(asyncio.to_thread(listener.stop, 2.0) for listener in self._listeners))
        self._emitter.remove()
        if not await asyncio.to_thread(self._spool.close, self.stop_seconds):
            self.log.error("exec-events: not everything could be written before the stop; see the messages above")

    def current_activity(self) -> dict[str, int] | None:
        """Executions under way keep the server from being culled."""
        pending = self.recorder.pending() if self.recorder else 0
        return {"executions": pending} if pending else None

    def who(self, user: Any) -> Identity | None:
        """Whom the record means by one of the server's users; None for one without a name."""
        return self.recorder.identity(user) if self.recorder is not None and user is not None else None

    def policy(self, user: Any) -> dict[str, Any]:
        """What `GET /exec-events/policy` answers a user, also where nothing is recorded."""
        who = self.who(user)
        if self.answers is not None and who is not None:
            return self.answers.policy(who)
        nothing: dict[str, Any] = {"recording": False, "consent": None, "sinks": [], "actions": False, "subject": ""}
        problems = self._problems or ["the recorder has stopped, or the server does not say who you are"]
        return self._site().policy() | nothing | {"problems": problems, "recording_since": None}

    def status(self) -> dict[str, Any]:
        """What `GET /exec-events/status` answers: no code, no names, no environment."""
        chosen = {name: getattr(self, name) for name in ("mode", "required", "identity", "contents")}
        health = self._health()
        if health is None:
            problems = self._problems or ["the recorder has stopped"]
            return {"healthy": False, "recording": False, "problems": problems} | chosen
        return health.figures() | chosen

    def _health(self) -> Health | None:
        if self.recorder is None:
            return None
        return Health(
            self._spool.state(),
            [deliverer.state() for deliverer in self._deliverers],
            [listener.state() for listener in self._listeners],
            self.recorder.faults,
            self.recorder.pending(),
            tuple(self._problems),
        )

    def _problem(self, text: str) -> None:
        self._problems.append(text)
        self.log.error("exec-events: %s", text)

    def _versions(self) -> dict[str, str]:
        packages = ("jupyter_server", "jupyter_client", "jupyter_events")
        return {
            "exec_events": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        }

    def _digest(self) -> str:
        """SHA-256 of what the admin chose: every setting, and of keys their names."""
        from hashlib import sha256

        # Secrets, and what is another for each server of a site.
        left_out = ("pseudonym_key_file", "hash_key_file", "sink_settings", "server_label", "owner_pseudonym")
        chosen = {name: self._digestible(name) for name in self.class_own_traits(config=True) if name not in left_out}
        chosen["deliver_to"] = [name_of(url) for url in self.deliver_to]
        chosen["sink_settings"] = {name: sorted(settings) for name, settings in self.sink_settings.items()}
        chosen["listeners"] = [listener.name for listener in self._listeners]
        chosen["keys"] = [key_id(key) if key else "" for key in self._keys]
        return f"sha256:{sha256(canonical(chosen)).hexdigest()}"

    def _digestible(self, name: str) -> Any:
        value = getattr(self, name)
        return str(value) if isinstance(value, float) else value


def server_account() -> str:
    """The account this process runs under, by its uid: the environment's word for it can be anything."""
    if os.name != "posix":
        return getpass.getuser()
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run under uids nobody named
        return f"uid-{os.getuid()}"
