-- Deferred constraints and triggers of the owner's run now, while what they do is still seen, and not at COMMIT.
SET CONSTRAINTS ALL IMMEDIATE
