-- Everything of fubd's own: the evidence, and what the daemon must find again after a restart.
-- Instants named received_at, *_received and heard are our clock's; all others are Follow Up Boss's.

-- Each verified webhook request, as it came. The key is a digest of its meaning, so a redelivery finds its first.
CREATE TABLE fubd.delivery (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         bytea       NOT NULL UNIQUE,
    event_id    text,
    event       text,
    received_at timestamptz NOT NULL,
    instance    text        NOT NULL,
    quarantine  text,
    body        bytea       NOT NULL
);
CREATE INDEX delivery_quarantine ON fubd.delivery (id) WHERE quarantine IS NOT NULL;
CREATE INDEX delivery_stage ON fubd.delivery (id) WHERE event = 'peopleStageUpdated';

-- What was said of a person. An entry: entered `stage` at `at` (eventCreated). A state: in `stage` at `at` (updated) and until `read_at`.
-- `seq` is the order of arrival and is drawn from the sequence of stage_changes.id (set where that table is made or adopted): a row bears
-- the seq of the claim that first made it. `row_id` is set only where that claim was older than the row.
CREATE TABLE fubd.claim (
    person_id   bigint      NOT NULL,
    at          timestamptz NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('entry', 'state')),
    channel     text        NOT NULL CHECK (channel IN ('webhook', 'polling')),
    event_id    text        NOT NULL DEFAULT '',
    stage       text        NOT NULL,
    stage_id    bigint,
    seq         bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    read_at     timestamptz,
    covered     timestamptz,
    created     timestamptz,
    ignored     boolean     NOT NULL DEFAULT false,
    row_id      bigint,
    PRIMARY KEY (person_id, at, kind, channel, event_id, stage)
);

-- Each person as last read. `stage` is the stage of that read; where they stand now may be told by a later row.
CREATE TABLE fubd.person (
    id                 bigint PRIMARY KEY,
    stage              text,
    stage_id           bigint,
    created            timestamptz,
    updated            timestamptz,
    verified_at        timestamptz,
    scrub_after        timestamptz NOT NULL DEFAULT '-infinity',
    gone_at            timestamptz,
    first_name         text,
    last_name          text,
    assigned_user_id   text,
    assigned_user_name text,
    lead_source_tag    text,
    fields             jsonb       NOT NULL DEFAULT '{}'
) WITH (fillfactor = 80);
CREATE INDEX person_scrub ON fubd.person (scrub_after, id) WHERE gone_at IS NULL;

-- People whom a webhook spoke of and who are still to be read. `since`: a read must have seen this instant; `asked_at` (our clock): rows
-- received from then on are still to be filled.
CREATE TABLE fubd.hint (
    person_id  bigint      PRIMARY KEY,
    since      timestamptz NOT NULL,
    asked_at   timestamptz NOT NULL,
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    attempts   integer     NOT NULL DEFAULT 0,
    -- FUB said that they were deleted: being absent from a list is then enough to ask for them by id.
    deleted    boolean     NOT NULL DEFAULT false
);

-- Names that stages have had, to tell a renamed stage from a move.
CREATE TABLE fubd.stage (
    name text   PRIMARY KEY,
    id   bigint NOT NULL
);

-- Rows found by polling that no webhook has told yet; each is counted as missed once it is old enough, and forgotten.
CREATE TABLE fubd.unconfirmed (
    change_id  bigint      PRIMARY KEY,
    changed_at timestamptz NOT NULL
);

-- What later evidence changed in a row, for `explain`. `row` is the row as it was; null `became` when it was joined to another.
CREATE TABLE fubd.correction (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    change_id    bigint      NOT NULL,
    person_id    bigint      NOT NULL,
    corrected_at timestamptz NOT NULL,
    was          jsonb       NOT NULL,
    became       jsonb
);
CREATE INDEX correction_person ON fubd.correction (person_id, id);

CREATE TABLE fubd.coverage (
    one           boolean     PRIMARY KEY DEFAULT true CHECK (one),
    began         timestamptz,
    reached       timestamptz,
    sweep_began   timestamptz,
    sweep_from_id bigint
);
INSERT INTO fubd.coverage DEFAULT VALUES;

CREATE TABLE fubd.poll_run (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text        NOT NULL CHECK (kind IN ('incremental', 'scrub', 'sweep')),
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    outcome     text        CHECK (outcome IN ('ok', 'failed')),
    people      integer     NOT NULL DEFAULT 0,
    calls       integer     NOT NULL DEFAULT 0,
    changes     integer     NOT NULL DEFAULT 0,
    note        text
);
CREATE INDEX poll_run_ok ON fubd.poll_run (finished_at) WHERE outcome = 'ok' AND kind <> 'scrub';

CREATE TABLE fubd.mode_change (
    id            bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz      NOT NULL,
    mode          text             NOT NULL,
    reason        text             NOT NULL,
    delay_seconds double precision NOT NULL,
    evidence      jsonb            NOT NULL
);

-- The scrub round under way and the last complete one.
CREATE TABLE fubd.scrub (
    one             boolean     PRIMARY KEY DEFAULT true CHECK (one),
    round_began     timestamptz,
    matched         bigint      NOT NULL DEFAULT 0,
    mismatched      bigint      NOT NULL DEFAULT 0,
    last_ratio      double precision,
    last_people     bigint,
    last_finished   timestamptz
);
INSERT INTO fubd.scrub DEFAULT VALUES;

-- Who polls and keeps the webhooks. The database's clock decides; the token fences off a holder that slept through its term.
CREATE TABLE fubd.lease (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Settings that views need: the daemon writes its own here at start.
CREATE TABLE fubd.setting (
    name  text             PRIMARY KEY,
    value double precision NOT NULL
);
INSERT INTO fubd.setting VALUES ('webhook_stale_after_seconds', 3600), ('poll_stale_after_seconds', 2700);

-- One row when the product table was taken over from older scripts instead of made here: how it looked, to give it back by.
CREATE TABLE fubd.adoption (
    one        boolean     PRIMARY KEY DEFAULT true CHECK (one),
    adopted_at timestamptz NOT NULL DEFAULT now(),
    facts      jsonb       NOT NULL
);
