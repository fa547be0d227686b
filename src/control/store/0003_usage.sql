-- What data planes have counted, by day of UTC.
CREATE TABLE usage (
    organisation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    -- Since 1970; 0 = all the days that are not kept apart any more.
    day BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    -- In nano-dollars.
    cost BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, kind, object_id, day),
    FOREIGN KEY (organisation_id, kind, object_id) REFERENCES objects (organisation_id, kind, id) ON DELETE CASCADE
);

-- The last report of each process that counts, so that none is counted twice.
CREATE TABLE usage_reports (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    reporter TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, reporter)
);
