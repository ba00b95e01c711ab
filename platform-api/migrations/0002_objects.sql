-- Servers, grants and sessions, as manifests hold them. `revision` grows with every write, `generation` with every change of the spec.
CREATE TABLE objects (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL UNIQUE,
    revision BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    owner TEXT NOT NULL,
    labels TEXT NOT NULL,
    spec TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX objects_by_owner ON objects (kind, owner);

-- The number of the last write, so that every process sees at once whether anything changed.
CREATE TABLE object_revision (
    id BIGINT PRIMARY KEY,
    revision BIGINT NOT NULL
);
INSERT INTO object_revision (id, revision) VALUES (1, 0);
