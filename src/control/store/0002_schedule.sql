-- What the control plane does by itself: which objects are due when.
CREATE TABLE due (
    organisation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    -- Milliseconds since 1970.
    at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, kind, object_id),
    FOREIGN KEY (organisation_id, kind, object_id) REFERENCES objects (organisation_id, kind, id) ON DELETE CASCADE
);
CREATE INDEX due_by_time ON due (kind, at);

-- What an object has been, the current state included, where its kind keeps that.
CREATE TABLE revisions (
    organisation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    -- A UUID of version 7: sorts by time.
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, kind, object_id, id),
    FOREIGN KEY (organisation_id, kind, object_id) REFERENCES objects (organisation_id, kind, id) ON DELETE CASCADE
);
