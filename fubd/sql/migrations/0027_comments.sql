-- Comments on the tables that were made before each migration had to bring its own.

COMMENT ON TABLE fubd.delivery IS 'Each verified webhook request, as it came. Older ones are removed after FUBD_KEEP_DELIVERIES_DAYS.';
COMMENT ON COLUMN fubd.delivery.id IS 'Its number.';
COMMENT ON COLUMN fubd.delivery.key IS 'A digest of its meaning: a redelivery has the same.';
COMMENT ON COLUMN fubd.delivery.event_id IS 'Follow Up Boss''s id of the event, where it has one.';
COMMENT ON COLUMN fubd.delivery.event IS 'The kind of event, such as peopleStageUpdated.';
COMMENT ON COLUMN fubd.delivery.received_at IS 'When it came, by our clock.';
COMMENT ON COLUMN fubd.delivery.instance IS 'The process that received it.';
COMMENT ON COLUMN fubd.delivery.quarantine IS 'Why it could not be read, as a whole or in part. Null: it was read.';
COMMENT ON COLUMN fubd.delivery.body IS 'The bytes that were signed.';

COMMENT ON TABLE fubd.claim IS
    'The evidence: what a webhook or a read says of a person. The rows of stage_changes follow from it.';
COMMENT ON COLUMN fubd.claim.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN fubd.claim.at IS 'An entry: eventCreated. A state: when the person was last updated. By Follow Up Boss''s clock.';
COMMENT ON COLUMN fubd.claim.kind IS
    'entry: entered the stage then (a webhook). state: was in the stage then and when it was read (a read).';
COMMENT ON COLUMN fubd.claim.channel IS 'webhook or polling.';
COMMENT ON COLUMN fubd.claim.event_id IS 'Follow Up Boss''s id of the event; empty for a read.';
COMMENT ON COLUMN fubd.claim.stage IS 'The name of the stage.';
COMMENT ON COLUMN fubd.claim.stage_id IS 'Follow Up Boss''s id of the stage, where it is known.';
COMMENT ON COLUMN fubd.claim.seq IS
    'The order of arrival, drawn from the sequence of stage_changes.id: a row has the seq of the claim that first made it.';
COMMENT ON COLUMN fubd.claim.received_at IS 'When we learned of it, by our clock.';
COMMENT ON COLUMN fubd.claim.read_at IS 'A state: when it was last read, by Follow Up Boss''s clock. It grows.';
COMMENT ON COLUMN fubd.claim.covered IS 'A state: how far everything was recorded when it was read.';
COMMENT ON COLUMN fubd.claim.created IS 'A state: when the person was created in Follow Up Boss.';
COMMENT ON COLUMN fubd.claim.ignored IS 'Whether the stage is one of FUBD_IGNORE_STAGES.';
COMMENT ON COLUMN fubd.claim.row_id IS 'The row that it belongs to, where that is not the one with the id seq.';

COMMENT ON TABLE fubd.person IS 'Each person, as last read.';
COMMENT ON COLUMN fubd.person.id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN fubd.person.stage IS 'The stage in the last read; a later row of stage_changes may know a newer one.';
COMMENT ON COLUMN fubd.person.stage_id IS 'Follow Up Boss''s id of that stage.';
COMMENT ON COLUMN fubd.person.created IS 'When the person was created in Follow Up Boss.';
COMMENT ON COLUMN fubd.person.updated IS 'When the person was last updated in Follow Up Boss.';
COMMENT ON COLUMN fubd.person.verified_at IS 'When that was last read, by Follow Up Boss''s clock.';
COMMENT ON COLUMN fubd.person.scrub_after IS 'The order in which people are verified again: the lowest is next.';
COMMENT ON COLUMN fubd.person.gone_at IS 'When Follow Up Boss confirmed that the person is deleted. Null: not deleted.';
COMMENT ON COLUMN fubd.person.first_name IS 'First name.';
COMMENT ON COLUMN fubd.person.last_name IS 'Last name.';
COMMENT ON COLUMN fubd.person.assigned_user_id IS 'The id of the user whom the person is assigned to.';
COMMENT ON COLUMN fubd.person.assigned_user_name IS 'The name of that user.';
COMMENT ON COLUMN fubd.person.lead_source_tag IS 'The first tag of FUBD_LEAD_SOURCE_TAGS that the person has.';
COMMENT ON COLUMN fubd.person.fields IS 'The fields of FUBD_COLUMNS.';
COMMENT ON COLUMN fubd.person.announced IS 'Whether a webhook reported that the person was created.';

COMMENT ON TABLE fubd.hint IS 'People whom a webhook named without their stage, and who are still to be read.';
COMMENT ON COLUMN fubd.hint.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN fubd.hint.since IS 'A read must show this instant, by Follow Up Boss''s clock.';
COMMENT ON COLUMN fubd.hint.asked_at IS 'When the webhook came, by our clock: rows received from then on are still to be filled.';
COMMENT ON COLUMN fubd.hint.not_before IS 'No read before this instant, after one that failed.';
COMMENT ON COLUMN fubd.hint.attempts IS 'How often the read has failed.';
COMMENT ON COLUMN fubd.hint.deleted IS 'Whether the webhook said that the person was deleted.';

COMMENT ON TABLE fubd.stage IS 'Names that stages have had, to tell a renamed stage from a move.';
COMMENT ON COLUMN fubd.stage.name IS 'The name.';
COMMENT ON COLUMN fubd.stage.id IS 'Follow Up Boss''s id of the stage.';

COMMENT ON TABLE fubd.unconfirmed IS
    'Rows found by polling that no webhook has reported yet. Each is counted as missed once it is old enough, and removed then.';
COMMENT ON COLUMN fubd.unconfirmed.change_id IS 'The id of the row in stage_changes.';
COMMENT ON COLUMN fubd.unconfirmed.changed_at IS 'Its instant, by Follow Up Boss''s clock.';

COMMENT ON TABLE fubd.correction IS 'Each correction of a row of stage_changes by later evidence, for `fubd explain`.';
COMMENT ON COLUMN fubd.correction.id IS 'Its number.';
COMMENT ON COLUMN fubd.correction.change_id IS 'The id of the row.';
COMMENT ON COLUMN fubd.correction.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN fubd.correction.corrected_at IS 'When it was corrected, by our clock.';
COMMENT ON COLUMN fubd.correction.was IS 'The row before.';
COMMENT ON COLUMN fubd.correction.became IS 'The row after. Null: it was merged into another.';

COMMENT ON TABLE fubd.coverage IS 'How far everything is recorded. One row. Instants are Follow Up Boss''s.';
COMMENT ON COLUMN fubd.coverage.one IS 'Always true.';
COMMENT ON COLUMN fubd.coverage.began IS 'When the first read of the whole account began.';
COMMENT ON COLUMN fubd.coverage.reached IS 'Every change before this instant is recorded. Null until the first complete read.';
COMMENT ON COLUMN fubd.coverage.sweep_began IS 'When the read of the whole account in progress began. Null: none is in progress.';
COMMENT ON COLUMN fubd.coverage.sweep_from_id IS 'Where it continues: people with a lower id are read.';

COMMENT ON TABLE fubd.poll_run IS 'Each poll, scrub and read of the whole account.';
COMMENT ON COLUMN fubd.poll_run.id IS 'Its number.';
COMMENT ON COLUMN fubd.poll_run.kind IS 'incremental, scrub or sweep.';
COMMENT ON COLUMN fubd.poll_run.started_at IS 'When it began, by our clock.';
COMMENT ON COLUMN fubd.poll_run.finished_at IS 'When it ended. Null: it runs, or its process ended before it.';
COMMENT ON COLUMN fubd.poll_run.outcome IS 'ok, or failed, which an incomplete one is too.';
COMMENT ON COLUMN fubd.poll_run.people IS 'How many people it read.';
COMMENT ON COLUMN fubd.poll_run.calls IS 'How many requests it made to Follow Up Boss.';
COMMENT ON COLUMN fubd.poll_run.changes IS 'How many rows it made.';
COMMENT ON COLUMN fubd.poll_run.note IS 'Why it failed or was incomplete.';
COMMENT ON COLUMN fubd.poll_run.next_within_seconds IS
    'Within how many seconds another was to follow. Null: as the mode says; 0: none was promised.';

COMMENT ON TABLE fubd.mode_change IS
    'Each change of the mode, and what keeps the mode from flapping over a restart. Instants are our clock''s.';
COMMENT ON COLUMN fubd.mode_change.id IS 'Its number.';
COMMENT ON COLUMN fubd.mode_change.at IS 'When the mode changed.';
COMMENT ON COLUMN fubd.mode_change.mode IS 'The new mode.';
COMMENT ON COLUMN fubd.mode_change.reason IS 'Why, in words.';
COMMENT ON COLUMN fubd.mode_change.delay_seconds IS 'The seconds between polls in it.';
COMMENT ON COLUMN fubd.mode_change.evidence IS 'What it was decided from.';
COMMENT ON COLUMN fubd.mode_change.proven_at IS 'When it was last proven that webhooks fail.';
COMMENT ON COLUMN fubd.mode_change.missed IS 'Whether that proof was a missed change.';
COMMENT ON COLUMN fubd.mode_change.heard_again_at IS 'Since when webhooks arrive again.';
COMMENT ON COLUMN fubd.mode_change.relapses IS
    'How often webhooks failed again soon after they had recovered. Null in rows before this was kept.';

COMMENT ON TABLE fubd.scrub IS 'The round in which everybody is verified again, and the last complete one. One row.';
COMMENT ON COLUMN fubd.scrub.one IS 'Always true.';
COMMENT ON COLUMN fubd.scrub.round_began IS 'The scrub_after of the last person in line when the round began.';
COMMENT ON COLUMN fubd.scrub.matched IS 'People of this round whose last row was right.';
COMMENT ON COLUMN fubd.scrub.mismatched IS 'People of this round who had a missed change, or whose last row was wrong.';
COMMENT ON COLUMN fubd.scrub.last_ratio IS 'The share of people of the last complete round who were right.';
COMMENT ON COLUMN fubd.scrub.last_people IS 'How many people it verified.';
COMMENT ON COLUMN fubd.scrub.last_finished IS 'When it ended, by the database''s clock.';

COMMENT ON TABLE fubd.lease IS 'Which process polls and maintains the webhook subscriptions.';
COMMENT ON COLUMN fubd.lease.name IS 'What the lease is for.';
COMMENT ON COLUMN fubd.lease.holder IS 'The process that holds it.';
COMMENT ON COLUMN fubd.lease.token IS 'Grows with each holder, so that one whose term is over cannot write.';
COMMENT ON COLUMN fubd.lease.expires_at IS 'When its term ends, by the database''s clock.';

COMMENT ON TABLE fubd.setting IS 'Settings that views need. The daemon writes its own at each start.';
COMMENT ON COLUMN fubd.setting.name IS 'Its name.';
COMMENT ON COLUMN fubd.setting.value IS 'Its value.';

COMMENT ON TABLE fubd.adoption IS
    'What stage_changes was like before fubd took it over from older scripts, for `fubd adopt --undo`. One row; none where fubd made the table.';
COMMENT ON COLUMN fubd.adoption.one IS 'Always true.';
COMMENT ON COLUMN fubd.adoption.adopted_at IS 'When it was taken over, by the database''s clock.';
COMMENT ON COLUMN fubd.adoption.facts IS 'Its columns, indexes and privileges, and its rows as a count and a hash.';

COMMENT ON TABLE fubd.alert IS 'Alerts that are still to be sent to FUBD_ALERT_URL. Each leaves the table when the receiver has taken it.';
COMMENT ON COLUMN fubd.alert.id IS 'Its number: alerts of one subject are sent in this order.';
COMMENT ON COLUMN fubd.alert.subject IS 'The person, or 0 for modes, problems and summaries.';
COMMENT ON COLUMN fubd.alert.told IS 'What it says.';
COMMENT ON COLUMN fubd.alert.made_at IS 'When it was put here, by the database''s clock.';
COMMENT ON COLUMN fubd.alert.due_at IS 'Not sent before this instant; while a process sends it, it lies ahead.';
COMMENT ON COLUMN fubd.alert.attempts IS 'How often sending it has failed.';

COMMENT ON TABLE fubd.door_hour IS
    'How Follow Up Boss''s attempts to deliver webhooks went, by hour and process: it disables a webhook of which more than half fail over 48 hours.';
COMMENT ON COLUMN fubd.door_hour.hour IS 'The hour, by our clock.';
COMMENT ON COLUMN fubd.door_hour.instance IS 'The process that counted.';
COMMENT ON COLUMN fubd.door_hour.failed IS 'Attempts that we did not answer with 200.';
COMMENT ON COLUMN fubd.door_hour.taken IS 'Attempts that we answered with 200.';
COMMENT ON COLUMN fubd.door_hour.kept_at IS 'Until when that process has counted.';

COMMENT ON TABLE fubd.foreign_row IS 'Rows of stage_changes that another program wrote.';
COMMENT ON COLUMN fubd.foreign_row.id IS 'The id of the row.';
COMMENT ON COLUMN fubd.foreign_row.noticed_at IS 'When fubd noticed it, by the database''s clock.';
COMMENT ON COLUMN fubd.foreign_row.person_id IS 'Follow Up Boss''s id of the person, where the row has one.';
COMMENT ON COLUMN fubd.foreign_row.since IS 'From this instant on the person''s rows are compared again with the evidence.';
COMMENT ON COLUMN fubd.foreign_row.settled IS 'Whether that was done.';

COMMENT ON TABLE fubd.migration IS 'The steps of the schema that were applied.';
COMMENT ON COLUMN fubd.migration.number IS 'Its number.';
COMMENT ON COLUMN fubd.migration.name IS 'Its name.';
COMMENT ON COLUMN fubd.migration.sha256 IS 'The hash of its text.';
COMMENT ON COLUMN fubd.migration.applied_at IS 'When it was applied, by the database''s clock.';

COMMENT ON COLUMN fubd.foreign_mark.one IS 'Always true.';

COMMENT ON COLUMN fubd.time_zone.one IS 'Always true.';

COMMENT ON COLUMN fubd.unread_person.person_id IS 'Follow Up Boss''s id of the person.';
