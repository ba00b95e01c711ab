-- The events themselves, the ids that tell a repeat, and the blocks in which events came.
--
-- Absent texts are empty, absent trace and span ids zero, absent numbers null. `caller` is the hash of person and agent by which
-- distinct callers are counted. The namespace leads the key because every tenant's question begins with it; days are partitions so
-- that retention drops whole parts.

CREATE TABLE IF NOT EXISTS {events}{on_cluster}
(
    id                        UUID CODEC(ZSTD(1)),
    timestamp                 DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_at               DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    received_by               LowCardinality(String),
    source                    LowCardinality(String),
    event_type                LowCardinality(String),
    trace_id                  FixedString(16) CODEC(ZSTD(1)),
    span_id                   FixedString(8) CODEC(NONE),
    parent_span_id            FixedString(8) CODEC(ZSTD(1)),
    producer                  LowCardinality(String),
    producer_seq              Nullable(UInt64) CODEC(Delta(8), ZSTD(1)),
    partition                 UInt32 CODEC(ZSTD(1)),
    offset                    UInt64 CODEC(Delta(8), ZSTD(1)),
    server                    LowCardinality(String),
    namespace                 LowCardinality(String),
    team_id                   LowCardinality(String),
    cluster                   LowCardinality(String),
    human_id                  LowCardinality(String),
    agent_id                  LowCardinality(String),
    subject_team_id           LowCardinality(String),
    session_id                String CODEC(ZSTD(1)),
    identity                  LowCardinality(String),
    method                    LowCardinality(String),
    path                      LowCardinality(String),
    status                    Nullable(UInt64) CODEC(T64, ZSTD(1)),
    rpc_method                LowCardinality(String),
    tool_name                 LowCardinality(String),
    prompt_name               LowCardinality(String),
    resource_uri              String CODEC(ZSTD(1)),
    outcome                   LowCardinality(String),
    rpc_code                  Nullable(Int64) CODEC(ZSTD(1)),
    error_type                LowCardinality(String),
    decision                  LowCardinality(String),
    reason                    LowCardinality(String),
    policy_version            LowCardinality(String),
    policy_revision           LowCardinality(String),
    matched_grant             LowCardinality(String),
    matched_grant_namespace   LowCardinality(String),
    matched_session           LowCardinality(String),
    matched_session_namespace LowCardinality(String),
    required_trust            LowCardinality(String),
    required_side_effect      LowCardinality(String),
    risk_level                LowCardinality(String),
    admin_trust               LowCardinality(String),
    consented_trust           LowCardinality(String),
    effective_trust           LowCardinality(String),
    latency_us                Nullable(UInt64) CODEC(T64, ZSTD(1)),
    upstream_us               Nullable(UInt64) CODEC(T64, ZSTD(1)),
    ttfb_us                   Nullable(UInt64) CODEC(T64, ZSTD(1)),
    bytes_in                  Nullable(UInt64) CODEC(T64, ZSTD(1)),
    bytes_out                 Nullable(UInt64) CODEC(T64, ZSTD(1)),
    protocol_version          LowCardinality(String),
    era                       LowCardinality(String),
    client_name               LowCardinality(String),
    client_version            LowCardinality(String),
    response_kind             LowCardinality(String),
    sse_events                Nullable(UInt64) CODEC(T64, ZSTD(1)),
    progress_count            Nullable(UInt64) CODEC(T64, ZSTD(1)),
    tool_schema_hash          LowCardinality(String),
    request_id                String CODEC(ZSTD(1)),
    attributes                Map(String, String) CODEC(ZSTD(1)),
    caller                    LowCardinality(FixedString(8)),
    INDEX ix_id id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_session session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_human human_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_time timestamp TYPE minmax GRANULARITY 1,
    INDEX ix_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = {MergeTree}
PARTITION BY toDate(timestamp)
ORDER BY (namespace, toStartOfHour(timestamp), server, tool_name, timestamp)
SETTINGS {dedup}, ttl_only_drop_parts = 1;

-- Where each id is that came in the last days: the same id at another place is a repeat. In order of ids, which begin with a time.
CREATE TABLE IF NOT EXISTS {event_ids}{on_cluster}
(
    id         FixedString(16) CODEC(ZSTD(1)),
    seen_at    DateTime('UTC') CODEC(ZSTD(1)),
    partition  UInt32 CODEC(ZSTD(1)),
    offset     UInt64 CODEC(Delta(8), ZSTD(1))
)
ENGINE = {MergeTree}
PARTITION BY toDate(seen_at)
ORDER BY id
SETTINGS {dedup}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {event_ids_fill}{on_cluster} TO {event_ids} AS
SELECT UUIDToNum(id) AS id, now('UTC') AS seen_at, partition, offset
FROM {events};

-- One row per block, written before the block: per stream and partition a chain in which each block begins where the one before
-- ends. Deduplication by a token that names only the beginning lets one writer win, and all others take over its block.
CREATE TABLE IF NOT EXISTS {blocks}{on_cluster}
(
    stream            String,
    partition         UInt32,
    first             UInt64,
    end               UInt64,
    complete_through  DateTime64(9, 'UTC'),
    schema_version    UInt32,
    written_at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {MergeTree:everywhere}
ORDER BY (stream, partition, first)
SETTINGS {dedup};

-- How far each writer says the events are complete, for readers in other processes.
CREATE TABLE IF NOT EXISTS {watermarks}{on_cluster}
(
    stream            String,
    writer            String,
    complete_through  DateTime64(9, 'UTC'),
    written_at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = {ReplacingMergeTree:everywhere}
ORDER BY (stream, writer)
TTL toDateTime(written_at) + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 0;
