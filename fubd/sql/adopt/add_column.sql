-- Save that a column was added to an adopted table, so that undoing the adoption removes it.
UPDATE fubd.adoption SET facts = jsonb_set(facts, '{added}', facts->'added' || to_jsonb(:column::text))
