"""
The layout of a spool file: the SQLite tables that the recorder writes and every reader may read.

A spool is a folder with one ``<recorder_id>.db`` for each recorder and a ``<recorder_id>.lock`` that
its owner holds while it runs. Readers open the files read-only, at any time.
"""

from __future__ import annotations

LAYOUT_VERSION = "1"

# A user's own spool, in Jupyter's data directory.
FOLDER_NAME = "exec-events"

FILE_SUFFIX = ".db"
LOCK_SUFFIX = ".lock"
# Beside the file of a running recorder: a line "<execution_id> <note>" for each request, written at once
# and not synced. What a killed server requested in its last milliseconds is here and not yet in the file.
BEGUN_SUFFIX = ".begun"

# records: one sealed record a row; id is the order of sealing over all chains of the file. hash is
#   its leaf hash, kept so that a damaged row is named by itself; verification recomputes it.
# heads: the last record of each chain, so that the file can be continued without a scan.
# begun: executions that have begun and are not over; note is the JSON the closing event is made of.
# deliveries: how far each sink has acknowledged, as a records.id.
# contents: bodies the site chose to keep, by the commitment SHA-256(nonce || body) in the event.
# meta: layout, recorder_id, started_at, and linked_by once a later recorder linked to this one.
DDL = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, record BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS heads (chain TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS begun (execution_id TEXT PRIMARY KEY, note BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (sink TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (
    commitment TEXT PRIMARY KEY, subject TEXT NOT NULL, kind TEXT NOT NULL, nonce BLOB NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS contents_of_subject ON contents (subject);
"""
