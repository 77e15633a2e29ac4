-- Keep how our answers went ($1: this instance; $3 to $5: hours with what failed and what was taken, as counted at $2), forget the hours
-- before $6, and give what all others counted since then, and until when they did.
WITH kept AS (
    INSERT INTO fubd.door_hour (hour, instance, failed, taken, kept_at)
    SELECT h.hour, $1, h.failed, h.taken, $2 FROM unnest($3::timestamptz[], $4::bigint[], $5::bigint[]) AS h(hour, failed, taken)
    ON CONFLICT (hour, instance) DO UPDATE SET failed = excluded.failed, taken = excluded.taken, kept_at = excluded.kept_at
), forgotten AS (
    DELETE FROM fubd.door_hour d WHERE d.hour < $6
)
SELECT
    coalesce(sum(d.failed) FILTER (WHERE d.hour >= $6), 0)::bigint AS failed,
    coalesce(sum(d.taken) FILTER (WHERE d.hour >= $6), 0)::bigint AS taken,
    max(d.kept_at) AS until
FROM fubd.door_hour d
WHERE d.instance <> $1
