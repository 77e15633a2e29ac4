-- Remove names and custom fields of people as last read, and the alerts about them that are still to be sent.
WITH unsent AS (
    DELETE FROM fubd.alert a WHERE a.subject = ANY(:people::bigint[])
)
UPDATE fubd.person p SET first_name = NULL, last_name = NULL, fields = '{}' WHERE p.id = ANY(:people::bigint[])
