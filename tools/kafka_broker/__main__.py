"""``python -m tools.kafka_broker``, or `make broker`: starts Apache Kafka and keeps it until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from .broker import Broker
from .errors import BrokerError
from .jars import fetch
from .ports import is_free

# Where Kafka is expected, and taken if nobody else is there.
USUAL_PORT = 9092


def main() -> int:
    """Run until Ctrl-C or SIGTERM; 1 when there is no broker, or it ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m tools.kafka_broker", description="Apache Kafka on 127.0.0.1.")
    parser.add_argument("--nodes", type=_nodes, default=1, metavar="N", help="1 to 9 (1)")
    parser.add_argument("--port", type=int, help=f"of the first node, the others follow ({USUAL_PORT} if it is free)")
    parser.add_argument("--directory", type=Path, help="keep settings, logs and data here (they are temporary)")
    parser.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="NAME=VALUE", help="in server.properties"
    )
    parser.add_argument("--fetch", action="store_true", help="fetch Kafka's jars with Maven, if need be, and end")
    arguments = parser.parse_args()
    # As Ctrl-C does: the way out is through `with`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        fetch()
        if arguments.fetch:
            return 0
        usual = range(USUAL_PORT, USUAL_PORT + arguments.nodes)
        port = arguments.port or (USUAL_PORT if all(map(is_free, usual)) else None)
        broker = Broker(arguments.nodes, properties=dict(arguments.set), directory=arguments.directory, port=port)
        nodes = "1 node" if arguments.nodes == 1 else f"{arguments.nodes} nodes"
        print(f"starting Apache Kafka, {nodes}…", file=sys.stderr)
        with broker:
            print(f"kafka://{broker.servers}", flush=True)
            print("Ctrl-C ends it", file=sys.stderr, flush=True)
            while len(broker.pids) == arguments.nodes:
                time.sleep(0.5)
            print(f"a node ended by itself:\n{broker.log[-4000:]}", file=sys.stderr)
            return 1
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _nodes(text: str) -> int:
    nodes = int(text)
    if not 1 <= nodes <= 9:
        raise argparse.ArgumentTypeError("1 to 9 nodes fit on one machine")
    return nodes


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
