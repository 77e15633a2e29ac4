-- Compute an expression for rows of stage_changes, as the server does when they are written.
SELECT count(ROW({expression})) FROM jsonb_populate_recordset(NULL::public.stage_changes, :rows::jsonb) AS stage_changes
