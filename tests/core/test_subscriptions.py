"""What a check of our webhooks proves."""

from __future__ import annotations

from fubd.core.subscriptions import SubscriptionReport, SubscriptionsReport, SubscriptionStatus


def test_a_report_describes_the_first_broken_webhook() -> None:
    """A repaired webhook was broken and no longer is; a status that says nothing of FUB's registry proves nothing."""
    repaired = SubscriptionReport("peopleStageUpdated", SubscriptionStatus.DISABLED, SubscriptionStatus.ACTIVE)
    unknown = SubscriptionReport("peopleCreated", SubscriptionStatus.NOT_OWNER, SubscriptionStatus.NOT_OWNER)
    report = SubscriptionsReport((unknown, repaired))
    assert report.was_broken == "the webhook for peopleStageUpdated is disabled in Follow Up Boss"
    assert report.is_broken is None
    assert report.statuses() == {"peopleCreated": "not_owner", "peopleStageUpdated": "active"}
