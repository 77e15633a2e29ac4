-- Mark a person as gone, unless a later read saw them.
UPDATE fubd.person SET gone_at = coalesce(gone_at, :at) WHERE id = :person_id AND (verified_at IS NULL OR verified_at <= :at)
