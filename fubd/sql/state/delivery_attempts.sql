-- Save this instance's delivery attempts by hour, as counted at :now; remove the hours before :window_begins; return what the other
-- instances counted since then, and until when.
WITH saved AS (
    INSERT INTO fubd.door_hour (hour, instance, failed, taken, kept_at)
    SELECT h.hour, :instance, h.failed, h.taken, :now
    FROM unnest(:hours::timestamptz[], :failed::bigint[], :taken::bigint[]) AS h(hour, failed, taken)
    ON CONFLICT (hour, instance) DO UPDATE SET failed = excluded.failed, taken = excluded.taken, kept_at = excluded.kept_at
), removed AS (
    DELETE FROM fubd.door_hour d WHERE d.hour < :window_begins
)
SELECT
    coalesce(sum(d.failed) FILTER (WHERE d.hour >= :window_begins), 0)::bigint AS failed,
    coalesce(sum(d.taken) FILTER (WHERE d.hour >= :window_begins), 0)::bigint AS taken,
    max(d.kept_at) AS until
FROM fubd.door_hour d
WHERE d.instance <> :instance
