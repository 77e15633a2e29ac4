# /// script
# requires-python = ">=3.11"
# dependencies = ["railway-sdk>=0.7"]
# ///
"""fubd on Railway, as code: `railway config plan` shows what would change, `railway config apply` changes it.

It declares the one service and nothing else of the project. `apply` removes what a declared service has and this file does not name, so a
variable that is set in the dashboard and is to stay must be named in KEPT; its value stays where it is and is never written here.
"""

from __future__ import annotations

from railway_sdk import Project, define_railway, github, preserve, project, service

# Yours: the project as it is called on Railway, and the repository it is deployed from.
PROJECT = "fubd"
REPOSITORY = "your-account/fubd"

# Only this service is ours: others of the project, a database or the older scripts, are left alone. Never rename it after an apply.
PARTIAL = "fubd"

# Set in the dashboard (deploy/README.md says what each is for). Add what else you set there.
KEPT = ("FUB_API_KEY", "FUB_SYSTEM", "FUB_SYSTEM_KEY", "DATABASE_URL", "FUBD_METRICS_TOKEN")

# What must hold however the service is deployed stands in its variables, too.
LIFE_CYCLE = {
    # From SIGTERM to SIGKILL. Without it there is no time at all; fubd needs less than 10 s.
    "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "30",
    # Both instances take webhooks meanwhile, so none meets a closed door; one at a time polls.
    "RAILWAY_DEPLOYMENT_OVERLAP_SECONDS": "20",
    # Until /readyz answers 200, so until the database was reached and the schema is right.
    "RAILWAY_HEALTHCHECK_TIMEOUT_SEC": "300",
}


@define_railway
def main(_context: object = None) -> Project:
    """Declare the service."""
    fubd = service(
        "fubd",
        source=github(REPOSITORY),
        build={"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"},
        healthcheck="/readyz",
        healthcheckTimeout=300,
        replicas=1,
        deploy={
            "drainingSeconds": 30,
            "overlapSeconds": 20,
            # On Failure gives up for good after its last try. Free plans know no Always: there, set ON_FAILURE.
            "restartPolicyType": "ALWAYS",
        },
        env={**dict.fromkeys(KEPT, preserve()), **LIFE_CYCLE},
    )
    return project(PROJECT, resources=[fubd])
