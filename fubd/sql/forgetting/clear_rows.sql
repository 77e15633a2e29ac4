-- Empty columns of all rows of these people, in stage_changes or in the copy of it that `adopt` made.
UPDATE {relation} c SET {assignments} WHERE c.person_id::text = ANY(:people::text[])
