-- Alerts on their way out (FUBD_ALERT_URL). They enter in the transaction that records what they tell of, and leave when the receiver
-- has taken them. `subject`: the person, or 0 for the mode; what is of one subject goes out in the order of `id`.
-- `due_at`: not before this; while an instance sends an alert it lies ahead, so that no other takes it.
CREATE TABLE fubd.alert (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject  bigint      NOT NULL,
    told     jsonb       NOT NULL,
    made_at  timestamptz NOT NULL DEFAULT now(),
    due_at   timestamptz NOT NULL DEFAULT '-infinity',
    attempts integer     NOT NULL DEFAULT 0
);
CREATE INDEX alert_subject ON fubd.alert (subject, id);

-- `status` asks for the deliveries of a day. They stand in the order of their arrival, so this kind of index costs the door next to nothing.
CREATE INDEX delivery_received ON fubd.delivery USING brin (received_at) WITH (autosummarize = on);
