"""The database's tables, version by version. A released version is never edited: the next one is added below it."""

from __future__ import annotations

APPLICATION_ID = 0x70644261  # "pdBa": tells our file from any other SQLite file

_VERSION_1 = (
    """
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)
    """,
    "INSERT INTO counters VALUES ('next_batch_key', 1), ('scrub_due', 0)",
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT,
        identity TEXT NOT NULL,
        created_at TEXT NOT NULL,
        base_url TEXT NOT NULL,
        model TEXT NOT NULL,
        n_rows INTEGER NOT NULL,
        n_requests INTEGER NOT NULL,
        n_reused INTEGER NOT NULL,
        n_skipped INTEGER NOT NULL,
        options TEXT NOT NULL,
        parent_id TEXT,
        cost_usd_max REAL,
        index_kind TEXT,
        api_version TEXT NOT NULL,
        estimate TEXT NOT NULL,
        retry_digest TEXT,
        n_extensions INTEGER NOT NULL,
        n_retried INTEGER NOT NULL,
        asks_no_more INTEGER NOT NULL,
        n_settled INTEGER,
        n_answered INTEGER,
        n_failed INTEGER,
        cost_usd REAL,
        paid_usd REAL
    )
    """,
    """
    CREATE INDEX runs_listed ON runs (
        number, id, name, model, n_rows, n_answered, n_failed, cost_usd, paid_usd, n_requests, n_reused, n_settled,
        created_at, base_url, parent_id
    )
    """,
    "CREATE INDEX runs_by_identity ON runs (identity)",
    "CREATE INDEX runs_by_name ON runs (name)",
    """
    CREATE TABLE batches (
        key INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        nonce TEXT NOT NULL UNIQUE,
        base_url TEXT NOT NULL,
        betas TEXT NOT NULL,
        n_requests INTEGER NOT NULL,
        n_bytes INTEGER NOT NULL,
        state TEXT NOT NULL,
        batch_id TEXT UNIQUE,
        proved INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        posted_at TEXT,
        server_posted_at TEXT,
        watermark_id TEXT,
        watermark_at TEXT,
        workspace_id TEXT,
        created_at TEXT,
        expires_at TEXT,
        ended_at TEXT,
        cancel_initiated_at TEXT,
        archived_at TEXT,
        counts TEXT NOT NULL,
        error TEXT,
        not_found_since TEXT,
        tried_ids TEXT NOT NULL,
        split_into TEXT NOT NULL,
        cancel_asked INTEGER NOT NULL,
        candidate_id TEXT,
        doubt TEXT NOT NULL,
        lost_after_s REAL,
        first_posted_at TEXT,
        first_server_posted_at TEXT,
        first_watermark_id TEXT,
        first_watermark_at TEXT,
        surplus TEXT NOT NULL,
        surplus_settled INTEGER NOT NULL,
        is_live INTEGER NOT NULL,
        continued TEXT NOT NULL
    )
    """,
    "CREATE INDEX batches_by_state ON batches (state)",
    "CREATE INDEX batches_by_size ON batches (base_url, n_requests)",
    """
    CREATE TABLE small_requests (
        fingerprint BLOB NOT NULL,
        draw INTEGER NOT NULL,
        batch_key INTEGER NOT NULL,
        position INTEGER NOT NULL
    )
    """,
    "CREATE INDEX small_requests_by_fingerprint ON small_requests (fingerprint)",
    "CREATE INDEX small_requests_by_batch ON small_requests (batch_key)",
    "CREATE INDEX batches_that_continue ON batches (key) WHERE continued != '{}'",
    """
    CREATE TABLE run_batches (
        run_id TEXT NOT NULL,
        place INTEGER NOT NULL,
        batch_key INTEGER NOT NULL,
        PRIMARY KEY (run_id, batch_key)
    )
    """,
    "CREATE INDEX run_batches_by_batch ON run_batches (batch_key)",
    "CREATE TABLE doomed (folder TEXT PRIMARY KEY)",
    """
    CREATE TABLE succeeded (batch_key INTEGER PRIMARY KEY, n_requests INTEGER NOT NULL, bits BLOB NOT NULL)
    """,
)

# No WITHOUT ROWID: integrity checks of SQLite 3.40 find NULLs in such tables that are not there.
MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1,)
"""Statements that lead from version i to version i + 1."""
