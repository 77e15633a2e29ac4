"""The endpoints of the account itself: stages, identity, users, custom fields and rate limits."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fubd.simulator.account import Account
from fubd.simulator.api import GLOBAL, NOT_FOUND, ApiRequest, ApiResponse, Route, list_response
from fubd.simulator.conditions import Conditions
from fubd.simulator.query import parse_int
from fubd.simulator.rate_limits import LIMITS, RateLimits
from fubd.simulator.registry import ApiError

CUSTOM_FIELDS: Final = (
    ("customCampaignID", "Campaign ID"),
    ("customPropertyState", "Property State"),
    ("customOfferAmount", "Offer Amount"),
)


class AccountApi:
    """The endpoints of the account itself: stages, identity, users, custom fields and rate limits."""

    def __init__(self, account: Account, conditions: Conditions, limits: RateLimits) -> None:
        self._account = account
        self._conditions = conditions
        self._limits = limits

    def routes(self) -> list[Route]:
        """Return the routes of these endpoints."""
        return [
            Route("GET", "/stages", "stages", GLOBAL, self._stages),
            Route("GET", "/stages/{id}", "stages", GLOBAL, self._stage),
            Route("POST", "/stages", "stages", GLOBAL, self._create_stage),
            Route("PUT", "/stages/{id}", "stages", GLOBAL, self._rename_stage),
            Route("DELETE", "/stages/{id}", "stages", GLOBAL, self._delete_stage),
            Route("GET", "/identity", "identity", GLOBAL, self._identity),
            Route("GET", "/users", "users", GLOBAL, self._users),
            Route("GET", "/customFields", "customFields", GLOBAL, self._custom_fields),
            Route("GET", "/rateLimit/limits", "rateLimit", GLOBAL, self._rate_limits),
            Route("GET", "/rateLimit/usage", "rateLimit", GLOBAL, self._rate_usage),
        ]

    def _stages(self, request: ApiRequest) -> ApiResponse:
        stages = [self._stage_json(index) for index, stage in enumerate(self._account.stages) if not stage.deleted]
        return list_response(request, "stages", stages, sorts=("orderWeight", "id", "name"))

    def _stage(self, request: ApiRequest) -> ApiResponse:
        return ApiResponse(self._stage_json(self._stage_index(request)))

    def _create_stage(self, request: ApiRequest) -> ApiResponse:
        try:
            stage_id = self._account.create_stage(str(request.body.get("name") or ""))
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: name.") from error
        index = [stage.id for stage in self._account.stages].index(stage_id)
        return ApiResponse(self._stage_json(index), status=HTTPStatus.CREATED)

    def _rename_stage(self, request: ApiRequest) -> ApiResponse:
        index = self._stage_index(request)
        name = request.body.get("name")
        if not isinstance(name, str) or not name:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Invalid value for field: name.")
        try:
            self._account.rename_stage(self._account.stages[index].name, name)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Protected stages cannot be changed.") from error
        return ApiResponse(self._stage_json(index))

    def _delete_stage(self, request: ApiRequest) -> ApiResponse:
        index = self._stage_index(request)
        target_id = request.body.get("assignStageId", parse_int(request.query.get("assignStageId")))
        target = next((stage for stage in self._account.stages if stage.id == target_id and not stage.deleted), None)
        if target is None:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Missing required field: assignStageId.")
        try:
            self._account.delete_stage(self._account.stages[index].name, target.name)
        except ValueError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "Protected stages cannot be deleted.") from error
        return ApiResponse({})

    def _stage_index(self, request: ApiRequest) -> int:
        stage_id = parse_int(request.path["id"])
        for index, stage in enumerate(self._account.stages):
            if stage.id == stage_id and not stage.deleted:
                return index
        raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)

    def _stage_json(self, index: int) -> dict[str, object]:
        stage = self._account.stages[index]
        return {
            "id": stage.id,
            "name": stage.name,
            "orderWeight": stage.order_weight,
            "isProtected": stage.protected,
            "peopleCount": self._account.people.stage.count(index),
        }

    def _identity(self, request: ApiRequest) -> ApiResponse:
        user, owner = request.caller.user, self._account.users[0]
        return ApiResponse(
            {
                "user": {"id": user.id, "name": user.name, "email": user.email},
                "account": {
                    "id": 4_000_000 + self._account.seed,
                    "domain": f"simulated-{self._account.seed}",
                    "owner": {"name": owner.name, "email": owner.email},
                },
            }
        )

    def _users(self, request: ApiRequest) -> ApiResponse:
        users = [{"id": user.id, "name": user.name, "email": user.email, "role": user.role.title()} for user in self._account.users]
        return list_response(request, "users", users, sorts=("id", "name"))

    def _custom_fields(self, request: ApiRequest) -> ApiResponse:
        fields = [{"id": 1 + index, "name": name, "label": label, "type": "text"} for index, (name, label) in enumerate(CUSTOM_FIELDS)]
        return list_response(request, "customfields", fields, sorts=("id",), text_total=True)

    def _rate_limits(self, request: ApiRequest) -> ApiResponse:
        registered = request.caller.system_key is not None
        limits = [{"context": name, "limit": both[0 if registered else 1], "window": 10} for name, both in LIMITS.items()]
        return ApiResponse({"limits": limits})

    def _rate_usage(self, request: ApiRequest) -> ApiResponse:
        bucket = request.caller.key if self._conditions.behaviour.limit_per_key else ""
        return ApiResponse({"usage": [{"context": name, "total": self._limits.total(name, bucket=bucket)} for name in LIMITS]})
