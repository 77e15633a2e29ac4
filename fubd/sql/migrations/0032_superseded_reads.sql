-- Reads that say nothing any more are removed (see `fubd.core.compaction`).
COMMENT ON TABLE fubd.claim IS
    'The evidence: what a webhook or a read says of a person. The rows of stage_changes follow from it. Settled reads that only agree with other evidence are removed.';
