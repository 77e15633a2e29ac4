# /// script
# requires-python = ">=3.11"
# dependencies = ["railway-sdk>=0.7"]
# ///
"""fubd on Railway, as code: `railway config plan` shows what would change, `railway config apply` changes it.

It declares one service and leaves the rest of the project alone. `apply` removes what the service has and this file does not name, so a
variable that you set in the dashboard must be named in KEPT; its value stays on Railway and is never written here.
"""

from __future__ import annotations

from railway_sdk import Project, define_railway, github, preserve, project, service

# Replace these: the name of your project on Railway, and the repository that it is deployed from.
PROJECT = "fubd"
REPOSITORY = "your-account/fubd"

# Other services of the project, such as a database or the older scripts, are left alone. Never rename the service after an apply.
PARTIAL = "fubd"

# Variables that are set in the dashboard; deploy/README.md explains each. Add the others that you set there.
KEPT = ("FUB_API_KEY", "FUB_SYSTEM", "FUB_SYSTEM_KEY", "DATABASE_URL", "FUBD_METRICS_TOKEN")

# What must hold however the service is deployed is also in its variables.
LIFE_CYCLE = {
    # From SIGTERM to SIGKILL; the default is 0. fubd needs less than 10 s.
    "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "30",
    # In this time both instances accept webhooks, so none is refused; one of them polls.
    "RAILWAY_DEPLOYMENT_OVERLAP_SECONDS": "20",
    # Until /readyz answers 200: the database was reached and the schema is right.
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
            # On Failure gives up for good after its last attempt. Free plans do not offer Always: set ON_FAILURE there.
            "restartPolicyType": "ALWAYS",
        },
        env={**dict.fromkeys(KEPT, preserve()), **LIFE_CYCLE},
    )
    return project(PROJECT, resources=[fubd])
