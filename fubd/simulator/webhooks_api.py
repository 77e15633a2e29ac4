"""The endpoints of webhooks and their past events, for the owner and a registered system only."""

from __future__ import annotations

from http import HTTPStatus

from fubd.simulator.api import GLOBAL, NOT_FOUND, ApiRequest, ApiResponse, Route, list_response
from fubd.simulator.conditions import Conditions
from fubd.simulator.deliveries import Deliveries
from fubd.simulator.keys import require_owner
from fubd.simulator.query import parse_int
from fubd.simulator.registry import ApiError, Registry


class WebhooksApi:
    """The endpoints of webhooks and their past events, for the owner and a registered system only."""

    def __init__(self, registry: Registry, deliveries: Deliveries, conditions: Conditions) -> None:
        self._registry = registry
        self._deliveries = deliveries
        self._conditions = conditions

    def routes(self) -> list[Route]:
        """Return the routes of these endpoints."""
        return [
            Route("GET", "/webhooks", "webhooks", GLOBAL, self._webhooks),
            Route("POST", "/webhooks", "webhooks", GLOBAL, self._create_webhook),
            Route("GET", "/webhooks/{id}", "webhooks", GLOBAL, self._webhook),
            Route("PUT", "/webhooks/{id}", "webhooks", GLOBAL, self._update_webhook),
            Route("DELETE", "/webhooks/{id}", "webhooks", GLOBAL, self._delete_webhook),
            Route("GET", "/webhookEvents/{id}", "webhookEvents", GLOBAL, self._webhook_event),
        ]

    def _webhooks(self, request: ApiRequest) -> ApiResponse:
        system_key = require_owner(request.caller)
        wanted = {name: request.query[name] for name in ("event", "status") if name in request.query}
        webhooks = self._registry.listed(system_key)
        chosen = [webhook for webhook in webhooks if all(webhook[name] == value for name, value in wanted.items())]
        return list_response(request, "webhooks", chosen, sorts=("id", "status", "event"))

    def _create_webhook(self, request: ApiRequest) -> ApiResponse:
        system_key = require_owner(request.caller)
        webhook = self._registry.add(request.body.get("event"), request.body.get("url"), system_key)
        return ApiResponse(webhook.to_json(), status=HTTPStatus.CREATED)

    def _webhook(self, request: ApiRequest) -> ApiResponse:
        return ApiResponse(self._registry.get(self._webhook_id(request), require_owner(request.caller)).to_json())

    def _update_webhook(self, request: ApiRequest) -> ApiResponse:
        webhook = self._registry.get(self._webhook_id(request), require_owner(request.caller))
        self._registry.update(webhook, event=request.body.get("event"), url=request.body.get("url"), status=request.body.get("status"))
        return ApiResponse(webhook.to_json())

    def _delete_webhook(self, request: ApiRequest) -> ApiResponse:
        self._registry.delete(self._registry.get(self._webhook_id(request), require_owner(request.caller)))
        return ApiResponse(None, status=HTTPStatus.NO_CONTENT) if self._conditions.behaviour.delete_webhook_empty else ApiResponse({})

    def _webhook_event(self, request: ApiRequest) -> ApiResponse:
        require_owner(request.caller)
        event = self._deliveries.events.get(request.path["id"])
        if event is None:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return ApiResponse(event.record(with_data=self._conditions.behaviour.event_data_kept))

    @staticmethod
    def _webhook_id(request: ApiRequest) -> int:
        webhook_id = parse_int(request.path["id"])
        if webhook_id is None:
            raise ApiError(HTTPStatus.NOT_FOUND, NOT_FOUND)
        return webhook_id
