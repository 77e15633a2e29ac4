"""`python -m fubd.simulator`: serve a simulated Follow Up Boss account on this machine only."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from fubd.simulator.account import Account
from fubd.simulator.clock import SimClock
from fubd.simulator.control import Control
from fubd.simulator.random_scenario import draw_scenario
from fubd.simulator.rng import Rng
from fubd.simulator.scenario import SCENARIOS, Scenario, play
from fubd.simulator.service import Simulator

log = logging.getLogger("fubd.simulator")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fubd.simulator", description="A simulated Follow Up Boss account on 127.0.0.1.")
    parser.add_argument("--people", type=int, default=500, help="number of invented people in the account (default 500)")
    parser.add_argument("--port", type=int, default=9100, help="port to listen on, 0 for any free one (default 9100)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the people and of every fault (default 7)")
    parser.add_argument("--speed", type=float, default=1.0, help="simulated seconds per real second (default 1)")
    parser.add_argument("--api-key", default="test-api-key", help="the owner's API key (default test-api-key)")
    parser.add_argument("--system", default="fubd", help="the registered X-System (default fubd)")
    parser.add_argument("--system-key", default="test-system-key", help="its X-System-Key, which signs webhooks (default test-system-key)")
    parser.add_argument("--scenario", choices=[*sorted(SCENARIOS), "random"], help="play this scenario from the start")
    return parser.parse_args(argv)


def _scenario(arguments: argparse.Namespace) -> Scenario | None:
    if arguments.scenario == "random":
        return draw_scenario(Rng(arguments.seed), people=arguments.people)
    return SCENARIOS[arguments.scenario] if arguments.scenario else None


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    account = Account(seed=arguments.seed, people=arguments.people, clock=SimClock(datetime.now(UTC), speed=arguments.speed))
    simulator = Simulator(account, api_key=arguments.api_key, system=arguments.system, system_key=arguments.system_key)
    url = await simulator.start(port=arguments.port, control=Control(simulator).app())
    log.info(
        "%d people at %s, owner's key %s, X-System %s with key %s",
        len(account),
        url,
        arguments.api_key,
        arguments.system,
        arguments.system_key,
    )
    log.info("control API at %s", url.removesuffix("/v1") + "/control")
    scenario = _scenario(arguments)
    player = asyncio.create_task(play(scenario, simulator)) if scenario else None
    try:
        await stop.wait()
    finally:
        if player is not None:
            player.cancel()
            await asyncio.gather(player, return_exceptions=True)
        await simulator.stop()


def main(argv: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code: 0, 1 when the port is taken, 2 for bad arguments."""
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    if arguments.people < 1 or arguments.speed < 0:
        log.error("--people must be at least 1 and --speed at least 0")
        return 2
    try:
        asyncio.run(_serve(arguments))
    except OSError as error:
        log.critical("cannot listen on port %d: %s", arguments.port, error.strerror)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
