-- Advance coverage, never backwards. A complete sweep also clears its own notes.
UPDATE fubd.coverage
SET reached = greatest(reached, :watermark),
    began = coalesce(began, :watermark),
    sweep_began = CASE WHEN :sweep THEN NULL ELSE sweep_began END,
    sweep_from_id = CASE WHEN :sweep THEN NULL ELSE sweep_from_id END
RETURNING reached
