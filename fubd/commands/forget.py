"""`python -m fubd forget PERSON_ID`: removes a person's names and payloads everywhere, and keeps them out."""

from __future__ import annotations

import argparse
import asyncio

from fubd.commands.console import Console
from fubd.commands.question import confirm
from fubd.commands.recording import open_components, verify_account
from fubd.commands.session import load_settings
from fubd.core.text import format_name
from fubd.errors import UserError
from fubd.settings import Settings
from fubd.store.forgetting import forget
from fubd.store.people import PeopleReader

_HIGHEST_ID = 2**63 - 1


def run(args: argparse.Namespace) -> int:
    """Forget a person; 0, or 1 when the person is unknown or the answer is no."""
    return asyncio.run(_forget(load_settings(), args, Console()))


async def _forget(settings: Settings, args: argparse.Namespace, console: Console) -> int:
    unknown = UserError(f"person {args.person_id} is unknown in this database: nothing was changed")
    if args.person_id > _HIGHEST_ID:
        raise unknown
    async with open_components(settings, migrated=False) as components:
        with console.show_warnings():
            await verify_account(components)
        pool = components.pool
        evidence = await PeopleReader(pool).evidence(args.person_id)
        if evidence is None:
            raise unknown
        name = format_name(evidence.person.first_name, evidence.person.last_name)
        person = f"person {args.person_id} ({name})" if name else f"person {args.person_id}"
        console.print_notice(
            f"This removes the names and payloads of {person} from every table of fubd and from the copy that adopt made, and keeps them "
            "out from now on. Stages, times and agents stay. It cannot be undone."
        )
        if not confirm(console, "Continue?", assume_yes=args.yes):
            return 1
        columns = await forget(pool, args.person_id, columns=settings.columns)
        if columns is None:
            raise unknown
    console.print(f"emptied in their rows: {', '.join(columns.emptied)}")
    if columns.left:
        console.print_notice(f"not emptied, because they must not be null: {', '.join(columns.left)}")
    console.print(f"person {args.person_id} is forgotten; delete them in Follow Up Boss too, and in backups of the database", "bold green")
    return 0
