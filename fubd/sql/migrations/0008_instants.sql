-- What older scripts left behind may have no instant, or one beyond all time ('infinity', a year of another era). It is in no order with the
-- others, and before PostgreSQL 17 one such row would make a difference of instants fail, and with it the whole view.

CREATE OR REPLACE VIEW public.stage_durations AS
SELECT
    c.id, c.person_id, c.stage_to AS stage,
    fubd.instant(c.changed_at) AS entered_at,
    lead(fubd.instant(c.changed_at)) OVER person AS left_at,
    lead(c.stage_to) OVER person AS next_stage,
    coalesce(lead(fubd.instant(c.changed_at)) OVER person, now()) - fubd.instant(c.changed_at) AS duration
FROM public.stage_changes c
WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01'
WINDOW person AS (PARTITION BY c.person_id ORDER BY c.changed_at, c.id);

CREATE OR REPLACE VIEW public.stage_changes_daily AS
SELECT
    (fubd.instant(c.changed_at) AT TIME ZONE 'UTC')::date AS day, fubd.source_of(c.source) AS source, c.stage_to AS stage, count(*) AS changes
FROM public.stage_changes c
WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01'
GROUP BY 1, 2, 3;
