"""A store's URL in; ends well when the aggregate has made its tables there."""

import sys

from exec_events_consumers.dashboard.serve import reading_engine
from exec_events_consumers.errors import ConsumerError

try:
    reading_engine(sys.argv[1]).dispose()
except ConsumerError as error:
    sys.exit(str(error))
