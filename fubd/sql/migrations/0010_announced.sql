-- Whether a webhook told that the person was created. It names no stage, but says that whoever reads them first found nobody new.
ALTER TABLE fubd.person ADD COLUMN announced boolean NOT NULL DEFAULT false;
