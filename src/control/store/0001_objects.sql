-- Everything an organisation has. There is no NULL: '' is "none", 0 is "never".

CREATE TABLE organisations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- Of its snapshot: one more with each write. Its row is the lock that puts the writes of an organisation in a row.
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- One row an object, whatever its kind; what only one kind has stands in body, as JSON. No credential is in here in clear.
CREATE TABLE objects (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    kind TEXT NOT NULL,
    -- A UUID of version 7: sorts by creation.
    id TEXT NOT NULL,
    -- '' = the whole organisation's.
    workspace_id TEXT NOT NULL,
    slug TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    body TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- Of the snapshot that brought the last change.
    version BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, kind, id),
    UNIQUE (organisation_id, kind, workspace_id, slug)
);
CREATE INDEX objects_by_version ON objects (organisation_id, version);

-- Who needs whom: what is used cannot be removed.
CREATE TABLE uses (
    organisation_id TEXT NOT NULL,
    user_kind TEXT NOT NULL,
    user_id TEXT NOT NULL,
    used_kind TEXT NOT NULL,
    used_id TEXT NOT NULL,
    PRIMARY KEY (organisation_id, user_kind, user_id, used_kind, used_id),
    FOREIGN KEY (organisation_id, user_kind, user_id) REFERENCES objects (organisation_id, kind, id) ON DELETE CASCADE,
    FOREIGN KEY (organisation_id, used_kind, used_id) REFERENCES objects (organisation_id, kind, id)
);
CREATE INDEX uses_by_used ON uses (organisation_id, used_kind, used_id);

-- What is gone, for those who ask only for what changed.
CREATE TABLE removals (
    organisation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, version, kind, id)
);

-- Keyed hashes of what callers present: of API keys, and tokens of data planes.
CREATE TABLE hashes (
    organisation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    kid TEXT NOT NULL,
    -- The first digits, to look it up by; the rest is compared in constant time.
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL,
    -- Milliseconds since 1970; 0 = never.
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, kind, object_id, kid, hash),
    FOREIGN KEY (organisation_id, kind, object_id) REFERENCES objects (organisation_id, kind, id) ON DELETE CASCADE
);
CREATE INDEX hashes_by_prefix ON hashes (prefix);

-- Every write: who, what, when, which fields. Never a value.
CREATE TABLE audit (
    organisation_id TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    slug TEXT NOT NULL,
    -- JSON array of names.
    fields TEXT NOT NULL,
    PRIMARY KEY (organisation_id, id)
);

-- One row: what belongs to the database as a whole.
CREATE TABLE installation (
    -- Of every feed from this database; a later one beats every version of an earlier one.
    epoch BIGINT NOT NULL
);
