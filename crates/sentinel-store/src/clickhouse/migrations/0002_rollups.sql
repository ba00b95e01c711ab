-- What calls add up to, maintained by the engine with each insert: per hour or day and tool, per hour or day and server, per minute
-- and server.
--
-- Sums are plain, so a partial read needs no merge function. `latency` maps the buckets of our latency sketch to counts; a distinct
-- count maps the places of hashes to their greatest rank. All of it depends on the events alone, neither on their order nor on how
-- they were cut into blocks, so that rollups and events give the same answer. Each distinct count stands where it is asked for:
-- they are most of a rollup's bytes. `latest` is the last offset of each partition of the queue that went into a row: what tells,
-- after a crash, whether a block is in.

-- Per hour and tool.
CREATE TABLE IF NOT EXISTS {calls_hourly}{on_cluster}
(
    bucket      DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    namespace   LowCardinality(String),
    server      LowCardinality(String),
    team_id     LowCardinality(String),
    tool_name   LowCardinality(String),
    rpc_method  LowCardinality(String),
    event_type  LowCardinality(String),
    outcome     LowCardinality(String),
    decision    LowCardinality(String),
    events      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    allowed     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    denied      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_in    SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_out   SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    latency     SimpleAggregateFunction(sumMap, Tuple(Array(UInt16), Array(UInt64))) CODEC(ZSTD(1)),
    callers     SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    last_seen   SimpleAggregateFunction(max, DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    latest      SimpleAggregateFunction(maxMap, Tuple(Array(UInt32), Array(UInt64))) CODEC(ZSTD(1))
)
ENGINE = {AggregatingMergeTree}
PARTITION BY toYYYYMM(bucket)
ORDER BY (namespace, bucket, server, tool_name, team_id, rpc_method, event_type, outcome, decision)
SETTINGS {dedup}, ttl_only_drop_parts = 1;

-- Per UTC day and tool.
CREATE TABLE IF NOT EXISTS {calls_daily}{on_cluster}
(
    bucket      DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    namespace   LowCardinality(String),
    server      LowCardinality(String),
    team_id     LowCardinality(String),
    tool_name   LowCardinality(String),
    rpc_method  LowCardinality(String),
    event_type  LowCardinality(String),
    outcome     LowCardinality(String),
    decision    LowCardinality(String),
    events      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    allowed     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    denied      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_in    SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_out   SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    latency     SimpleAggregateFunction(sumMap, Tuple(Array(UInt16), Array(UInt64))) CODEC(ZSTD(1)),
    callers     SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    last_seen   SimpleAggregateFunction(max, DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    latest      SimpleAggregateFunction(maxMap, Tuple(Array(UInt32), Array(UInt64))) CODEC(ZSTD(1))
)
ENGINE = {AggregatingMergeTree}
PARTITION BY toYear(bucket)
ORDER BY (namespace, bucket, server, tool_name, team_id, rpc_method, event_type, outcome, decision)
SETTINGS {dedup}, ttl_only_drop_parts = 1;

-- Per hour and server.
CREATE TABLE IF NOT EXISTS {servers_hourly}{on_cluster}
(
    bucket     DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    namespace  LowCardinality(String),
    server     LowCardinality(String),
    team_id    LowCardinality(String),
    events     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    allowed    SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    denied     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_in   SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_out  SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    latency    SimpleAggregateFunction(sumMap, Tuple(Array(UInt16), Array(UInt64))) CODEC(ZSTD(1)),
    humans     SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    agents     SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    sessions   SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    last_seen  SimpleAggregateFunction(max, DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    latest     SimpleAggregateFunction(maxMap, Tuple(Array(UInt32), Array(UInt64))) CODEC(ZSTD(1))
)
ENGINE = {AggregatingMergeTree}
PARTITION BY toYYYYMM(bucket)
ORDER BY (namespace, bucket, server, team_id)
SETTINGS {dedup}, ttl_only_drop_parts = 1;

-- Per UTC day and server.
CREATE TABLE IF NOT EXISTS {servers_daily}{on_cluster}
(
    bucket     DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    namespace  LowCardinality(String),
    server     LowCardinality(String),
    team_id    LowCardinality(String),
    events     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    allowed    SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    denied     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_in   SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_out  SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    latency    SimpleAggregateFunction(sumMap, Tuple(Array(UInt16), Array(UInt64))) CODEC(ZSTD(1)),
    humans     SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    agents     SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    sessions   SimpleAggregateFunction(maxMap, Tuple(Array(UInt16), Array(UInt8))) CODEC(ZSTD(1)),
    last_seen  SimpleAggregateFunction(max, DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    latest     SimpleAggregateFunction(maxMap, Tuple(Array(UInt32), Array(UInt64))) CODEC(ZSTD(1))
)
ENGINE = {AggregatingMergeTree}
PARTITION BY toYear(bucket)
ORDER BY (namespace, bucket, server, team_id)
SETTINGS {dedup}, ttl_only_drop_parts = 1;

-- Per minute and server, counts alone, for live views.
CREATE TABLE IF NOT EXISTS {calls_minutely}{on_cluster}
(
    bucket     DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    namespace  LowCardinality(String),
    server     LowCardinality(String),
    team_id    LowCardinality(String),
    events     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    allowed    SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    denied     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_in   SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes_out  SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    latest     SimpleAggregateFunction(maxMap, Tuple(Array(UInt32), Array(UInt64))) CODEC(ZSTD(1))
)
ENGINE = {AggregatingMergeTree}
PARTITION BY toDate(bucket)
ORDER BY (namespace, bucket, server, team_id)
TTL bucket + INTERVAL 7 DAY
SETTINGS {dedup}, ttl_only_drop_parts = 1;

-- The bucket of a latency: its seven leading bits and how far they are shifted. A hash has its place in its first sixteen bits; its
-- rank is one more than the zeros that follow them. A float's exponent tells how many bits a number has, and numbers that a float
-- does not hold exactly are looked at without their lower half.
CREATE MATERIALIZED VIEW IF NOT EXISTS {calls_hourly_fill}{on_cluster} TO {calls_hourly} AS
WITH
    x -> toUInt8(bitShiftRight(reinterpretAsUInt64(toFloat64(x)), 52) - 1022) AS bits,
    x -> if(x < 4294967296, bits(x), bits(bitShiftRight(x, 32)) + 32) AS bit_length,
    x -> if(x < 128, 0, bit_length(x) - 7) AS shift,
    x -> toUInt16(shift(x) * 64 + bitShiftRight(x, shift(x))) AS bucket_of,
    h -> toUInt16(bitShiftRight(h, 48)) AS place_of,
    h -> toUInt8(if(bitShiftLeft(h, 16) = 0, 49, 65 - bits(bitShiftLeft(h, 16)))) AS rank_of
SELECT
    toStartOfHour(toDateTime(timestamp, 'UTC')) AS bucket,
    namespace, server, team_id, tool_name, rpc_method, event_type, outcome, decision,
    count() AS events,
    countIf(decision = 'allow') AS allowed,
    countIf(outcome = 'denied' OR (outcome = '' AND decision = 'deny')) AS denied,
    countIf(outcome IN ('tool_error', 'rpc_error', 'transport_error')) AS errors,
    sum(ifNull(event.bytes_in, 0)) AS bytes_in,
    sum(ifNull(event.bytes_out, 0)) AS bytes_out,
    sumMap(
        if(isNull(latency_us), [], [bucket_of(assumeNotNull(latency_us))]),
        if(isNull(latency_us), [], [toUInt64(1)])) AS latency,
    maxMapIf([place_of(reinterpretAsUInt64(caller))], [rank_of(reinterpretAsUInt64(caller))], reinterpretAsUInt64(caller) != 0) AS callers,
    max(timestamp) AS last_seen,
    maxMap([partition], [offset]) AS latest
FROM {events} AS event
GROUP BY bucket, namespace, server, team_id, tool_name, rpc_method, event_type, outcome, decision;

CREATE MATERIALIZED VIEW IF NOT EXISTS {servers_hourly_fill}{on_cluster} TO {servers_hourly} AS
WITH
    x -> toUInt8(bitShiftRight(reinterpretAsUInt64(toFloat64(x)), 52) - 1022) AS bits,
    x -> if(x < 4294967296, bits(x), bits(bitShiftRight(x, 32)) + 32) AS bit_length,
    x -> if(x < 128, 0, bit_length(x) - 7) AS shift,
    x -> toUInt16(shift(x) * 64 + bitShiftRight(x, shift(x))) AS bucket_of,
    h -> toUInt16(bitShiftRight(h, 48)) AS place_of,
    h -> toUInt8(if(bitShiftLeft(h, 16) = 0, 49, 65 - bits(bitShiftLeft(h, 16)))) AS rank_of
SELECT
    toStartOfHour(toDateTime(timestamp, 'UTC')) AS bucket,
    namespace, server, team_id,
    count() AS events,
    countIf(decision = 'allow') AS allowed,
    countIf(outcome = 'denied' OR (outcome = '' AND decision = 'deny')) AS denied,
    countIf(outcome IN ('tool_error', 'rpc_error', 'transport_error')) AS errors,
    sum(ifNull(event.bytes_in, 0)) AS bytes_in,
    sum(ifNull(event.bytes_out, 0)) AS bytes_out,
    sumMap(
        if(isNull(latency_us), [], [bucket_of(assumeNotNull(latency_us))]),
        if(isNull(latency_us), [], [toUInt64(1)])) AS latency,
    maxMapIf([place_of(xxHash64(human_id))], [rank_of(xxHash64(human_id))], human_id != '') AS humans,
    maxMapIf([place_of(xxHash64(agent_id))], [rank_of(xxHash64(agent_id))], agent_id != '') AS agents,
    maxMapIf([place_of(xxHash64(session_id))], [rank_of(xxHash64(session_id))], session_id != '') AS sessions,
    max(timestamp) AS last_seen,
    maxMap([partition], [offset]) AS latest
FROM {events} AS event
GROUP BY bucket, namespace, server, team_id;

-- Days are the hours of a block added up once more, which is less work than counting its events again.
CREATE MATERIALIZED VIEW IF NOT EXISTS {calls_daily_fill}{on_cluster} TO {calls_daily} AS
SELECT
    toStartOfDay(hour.bucket) AS bucket,
    namespace, server, team_id, tool_name, rpc_method, event_type, outcome, decision,
    sum(hour.events) AS events,
    sum(hour.allowed) AS allowed,
    sum(hour.denied) AS denied,
    sum(hour.errors) AS errors,
    sum(hour.bytes_in) AS bytes_in,
    sum(hour.bytes_out) AS bytes_out,
    sumMap(hour.latency) AS latency,
    maxMap(hour.callers) AS callers,
    max(hour.last_seen) AS last_seen,
    maxMap(hour.latest) AS latest
FROM {calls_hourly} AS hour
GROUP BY bucket, namespace, server, team_id, tool_name, rpc_method, event_type, outcome, decision;

CREATE MATERIALIZED VIEW IF NOT EXISTS {servers_daily_fill}{on_cluster} TO {servers_daily} AS
SELECT
    toStartOfDay(hour.bucket) AS bucket,
    namespace, server, team_id,
    sum(hour.events) AS events,
    sum(hour.allowed) AS allowed,
    sum(hour.denied) AS denied,
    sum(hour.errors) AS errors,
    sum(hour.bytes_in) AS bytes_in,
    sum(hour.bytes_out) AS bytes_out,
    sumMap(hour.latency) AS latency,
    maxMap(hour.humans) AS humans,
    maxMap(hour.agents) AS agents,
    maxMap(hour.sessions) AS sessions,
    max(hour.last_seen) AS last_seen,
    maxMap(hour.latest) AS latest
FROM {servers_hourly} AS hour
GROUP BY bucket, namespace, server, team_id;

CREATE MATERIALIZED VIEW IF NOT EXISTS {calls_minutely_fill}{on_cluster} TO {calls_minutely} AS
SELECT
    toStartOfMinute(toDateTime(timestamp, 'UTC')) AS bucket,
    namespace, server, team_id,
    count() AS events,
    countIf(decision = 'allow') AS allowed,
    countIf(outcome = 'denied' OR (outcome = '' AND decision = 'deny')) AS denied,
    countIf(outcome IN ('tool_error', 'rpc_error', 'transport_error')) AS errors,
    sum(ifNull(event.bytes_in, 0)) AS bytes_in,
    sum(ifNull(event.bytes_out, 0)) AS bytes_out,
    maxMap([partition], [offset]) AS latest
FROM {events} AS event
GROUP BY bucket, namespace, server, team_id;
