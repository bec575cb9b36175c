"""asyncapi.yaml: valid by the specification's own parser, and true of what messages really are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from exec_events.sinks.kafka_topics import TopicSettings
from exec_events_schemas import topics
from exec_events_schemas.catalogue import catalogue, package_folder
from exec_events_schemas.record import seal
from spool_files import FIRST, chain_of, execution

REPOSITORY = Path(__file__).parents[2]
FILE = REPOSITORY / "schemas" / "exec_events_schemas" / "asyncapi.yaml"
ERROR = 0


def parse(path: Path) -> dict[str, Any]:
    """What @asyncapi/parser says of a file."""
    command = ["node", str(REPOSITORY / "tools" / "node" / "check_asyncapi.mjs"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def document() -> dict[str, Any]:
    """The file, as YAML."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


def test_it_is_valid() -> None:
    """@asyncapi/parser reads it, follows its references to the schemas, and finds no error and no warning."""
    found = parse(FILE)
    assert found["parsed"], found
    assert [one for one in found["found"] if one["code"] != "asyncapi-latest-version"] == []
    assert found["messages"] == ["record", "body", "checkpoint", "deadLetter"]


def test_the_parser_would_tell(tmp_path: Path) -> None:
    """With a schema gone that it points at, the same check finds an error."""
    broken = tmp_path / "asyncapi.yaml"
    broken.write_text(FILE.read_text(encoding="utf-8"), encoding="utf-8")
    assert any(one["severity"] == ERROR for one in parse(broken)["found"])


def test_it_points_at_every_schema() -> None:
    """The payload of a record may be any event of the catalogue, by reference to the YAML file itself."""
    event = document()["components"]["messages"]["record"]["payload"]["schema"]["properties"]["event"]
    referred = {one["$ref"] for one in event["anyOf"]}
    assert referred == {f"{name.event}/v{name.version}.yaml" for name in catalogue()}
    assert all((FILE.parent / path).is_file() for path in referred)


def test_its_headers_are_those_of_messages() -> None:
    """The headers it names are exactly those a message carries, and those of bodies and dead letters are ours."""
    record, head = seal(execution(FIRST, 1, 1), chain_of(FIRST, 1), None)
    carried = {name for name, _ in topics.message_of(record, head.hash).headers}
    schemas, messages = document()["components"]["schemas"], document()["components"]["messages"]
    assert set(schemas["recordHeaders"]["properties"]) == set(schemas["recordHeaders"]["required"]) == carried
    bodies = {topics.HEADER_SUBJECT, topics.HEADER_KIND, topics.HEADER_REFUSED}
    assert set(messages["body"]["headers"]["properties"]) == bodies
    assert topics.HEADER_REASON in messages["deadLetter"]["headers"]["properties"]


def test_its_topics_are_ours() -> None:
    """Each topic of a prefix is a channel, with the partitions and policies that the sink makes it with."""
    address = topics.KafkaAddress(["127.0.0.1:9092"], "x")
    channels = {channel["address"]: channel["bindings"]["kafka"] for channel in document()["channels"].values()}
    assert set(channels) == {f"{{prefix}}.{name}" for name in ("events", "contents", "checkpoints", "dead-letters")}
    for name, bindings in channels.items():
        own = TopicSettings().options(name.replace("{prefix}", "x"), address)
        assert bindings["partitions"] == own["num_partitions"]
        for key, value in bindings["topicConfiguration"].items():
            assert own["configs"][key] == (",".join(value) if isinstance(value, list) else str(value)), (name, key)


def test_it_is_in_the_package() -> None:
    """It lies beside the schemas it points at, where the package is installed."""
    assert (package_folder() / "asyncapi.yaml").is_file()
