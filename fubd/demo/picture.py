"""Render one moment for a terminal of any size: what does not fit is left out, least important first.

Cyan stands for webhooks, magenta for polling; green, yellow and red are reserved for health.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fubd.demo import score_report
from fubd.demo.view import ACTS, DemoView, ModeView, NarrationLine, Narrator, ShownChange, SourceView, pace_text
from fubd.simulator import Score

_STYLES = {"webhook": "cyan", "polling": "magenta"}
_TITLES = {"webhook": "webhooks", "polling": "polling"}
_MODE_STYLES = {"starting": "blue", "steady": "green", "watch": "yellow", "failover": "red", "recovering": "blue"}
_BARS = " ▁▂▃▄▅▆▇█"
_STEPS_A_DOUBLING = 1.4
_NARROW = 70
_BORDER = 2
_LEAST_CHANGES = 3
_ABOUT_LINES = 2
_SAID_LINES = 4
_ROOMY = 30
_WIDE = 100
_INDENT = 7


def render_frame(view: DemoView, narrator: Narrator, width: int, height: int) -> RenderableType:
    """Render the whole picture, at most `height` lines."""
    air = [_rows("")] if height >= _ROOMY else []
    parts = [_head(view, width), *air, _act(narrator, width), *air, _narration(narrator, width, _SAID_LINES + len(air)), *air]
    if view.sources:
        parts += [_cards(view, width), _mode(view, width), _counts(view, width)]
    left = height - sum(lines for lines, _ in parts)
    if view.recent and left >= _LEAST_CHANGES + _BORDER:
        parts.append(_changes(view.recent[: left - _BORDER], left, width))
    return Group(*(part for _, part in parts))


def score_table(score: Score) -> Table:
    """Render the final table of capture delays."""
    headings, *rows = score_report.table(score)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row, style=_STYLES.get(row[0], ""))
    return table


def narration_line(line: NarrationLine, width: int) -> Text:
    """Render one line of the narration with its time, for the transcript."""
    text = Text("\n" if line.kind == "headline" else "")
    text.append(f"{_clock(line.seconds):>5}  ", style="dim")
    indent = " " * _INDENT
    wrapped = textwrap.fill(line.text, max(width - 1, 2 * _INDENT), initial_indent=indent, subsequent_indent=indent)[_INDENT:]
    return text.append(wrapped, style={"headline": "bold", "about": "dim", "mode": "yellow"}.get(line.kind, ""))


# A part of the picture and the number of lines it takes.
_Part = tuple[int, RenderableType]


def _head(view: DemoView, width: int) -> _Part:
    name = Text(" fubd demo", style="bold")
    url = Text(f"{'' if width < _NARROW else 'status page '}{view.url or ''} ", style="dim")
    time = f" {_clock(view.seconds)} of {_clock(view.story_seconds)} "
    room = max(width - len(time) - 1, 0)
    done = round(room * min(view.seconds / view.story_seconds, 1.0))
    bar = Text.assemble(" ", ("━" * done, "green"), ("━" * (room - done), "bright_black"), (time, "dim"))
    return _rows(_justify(name, url, width), bar)


def _act(narrator: Narrator, width: int) -> _Part:
    act = narrator.current
    title = (
        Text(" Starting", style="bold") if act is None else Text.assemble(" ", (act.title, "bold"), (f"   {act.number} of {ACTS}", "dim"))
    )
    about = "" if act is None else act.about
    lines = textwrap.wrap(about, max(width - 3, 20), max_lines=_ABOUT_LINES if width >= _NARROW else _ABOUT_LINES + 1, placeholder=" …")
    lines += [""] * (_ABOUT_LINES - len(lines))
    return _rows(title, *(Text(f" {line}", style="dim") for line in lines))


def _narration(narrator: Narrator, width: int, count: int) -> _Part:
    said = [line for line in narrator.lines if line.kind == "said"][-count:]
    lines = []
    for line in said:
        style = "" if line is said[-1] else "dim"
        lines.append(_truncate(Text.assemble((f" {_clock(line.seconds):>5}  ", "dim"), (line.text, style)), width))
    return _rows(*lines, *[""] * (count - len(lines)))


def _cards(view: DemoView, width: int) -> _Part:
    if width < _NARROW:
        return _rows(*(_truncate(_short_card(one), width) for one in view.sources))
    table = Table.grid(expand=True)
    for _ in view.sources:
        table.add_column(ratio=1)
    each = width // len(view.sources) - 4
    table.add_row(*(_card(source, each) for source in view.sources))
    return 3 + _BORDER, table


def _short_card(source: SourceView) -> Text:
    name = (f" {_TITLES[source.name]:<9}", _STYLES[source.name])
    return Text.assemble(name, (f"{source.captured:>4} captured  ", "bold"), _status(source))


def _card(source: SourceView, width: int) -> Panel:
    style = _STYLES[source.name]
    heard = "no contact yet" if source.heard_seconds_ago is None else f"last contact {_ago(source.heard_seconds_ago)}"
    captured = Text.assemble((f"{source.captured}", f"bold {style}"), (" captured", ""))
    rows = (_status(source), _justify(captured, Text(heard, style="dim"), width), Text(_sparkline(source.pulse, width), style=style))
    return Panel(
        Group(*(_truncate(row, width) for row in rows)), title=_TITLES[source.name], title_align="left", border_style="bright_black"
    )


def _status(source: SourceView) -> Text:
    good = source.status == "HEALTHY"
    if source.heard_seconds_ago is None:
        return Text.assemble(("● ", "bright_black"), ("waiting", "dim"))
    return Text.assemble(("● ", "green" if good else "red"), (source.status, "green" if good else "red"))


def _mode(view: DemoView, width: int) -> _Part:
    if not view.modes:
        return _boxed("mode", [Text("starting", style="blue"), Text("")])
    now = view.modes[-1]
    style = _MODE_STYLES.get(now.mode, "")
    word = Text.assemble((now.mode.upper(), f"bold {style}"), ("  " + now.reason, ""))
    inside = width - 4
    pace = Text(pace_text(view.poll_every_seconds), style=style)
    history = _mode_history(view.modes, inside - pace.cell_len - 1)
    return _boxed("mode", [_truncate(word, inside), _justify(history, pace, inside)])


def _mode_history(modes: Sequence[ModeView], width: int) -> Text:
    """Render the modes so far; where they do not fit, the last ones."""
    history = Text()
    for one in reversed(modes):
        step = Text.assemble((f"{_clock(max(one.seconds, 0))} ", "dim"), (one.mode, _MODE_STYLES.get(one.mode, "")), "  ")
        if history.cell_len + step.cell_len > width:
            break
        history = step.append_text(history)
    return history


def _counts(view: DemoView, width: int) -> _Part:
    under_way = max(view.happened - view.recorded, 0)
    parts = [
        (view.happened, "happened", "bold"),
        (view.recorded, "recorded", "bold"),
        (under_way, "on the way", "bold yellow" if under_way else "bold"),
        (view.missed, "missed by webhooks", "bold"),
        (view.confirmed, "seen by both", "bold"),
        (view.redelivered, "delivered twice", "bold"),
    ]
    calls = Text.assemble((f"{view.api_calls}", "bold"), (" API calls ", "dim"))
    text = Text(" ")
    for count, what, style in parts:
        added = Text.assemble((f"{count}", style), (f" {what}", "dim"))
        if text.cell_len + added.cell_len + 3 + calls.cell_len <= width:
            text.append_text(added).append("   ")
    return _rows(_justify(text, calls, width))


def _changes(recent: Sequence[ShownChange], lines: int, width: int) -> _Part:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(width=9, no_wrap=True)
    table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=7, no_wrap=True, overflow="ellipsis")
    if width >= _NARROW:
        table.add_column(width=17 if width >= _WIDE else 9, no_wrap=True)
    for one in recent:
        cells = [Text(("" if one.exact else "≤") + f"{one.at:%H:%M:%S}", style="dim", justify="right"), Text(one.name), _stage_move(one)]
        table.add_row(*cells, *[_sources(one, width)][: 1 if width >= _NARROW else 0])
    return lines, Panel(table, title="last changes", title_align="left", border_style="bright_black", height=lines)


def _stage_move(change: ShownChange) -> Text:
    arrow = (" → ", _STYLES.get(change.source, ""))
    return Text.assemble((change.stage_from or "new", "dim"), arrow, change.stage_to)


def _sources(change: ShownChange, width: int) -> Text:
    text = Text(change.source, style=_STYLES.get(change.source, ""))
    if change.confirmed_by is None:
        return text
    return text.append(f" + {change.confirmed_by}" if width >= _WIDE else " +", style=_STYLES.get(change.confirmed_by, ""))


def _boxed(title: str, rows: Sequence[Text]) -> _Part:
    return len(rows) + _BORDER, Panel(Group(*rows), title=title, title_align="left", border_style="bright_black")


def _rows(*rows: Text | str) -> _Part:
    return len(rows), Group(*rows)


def _justify(left: Text, right: Text, width: int) -> Text:
    """Put one text at the left end and one at the right; the left one is shortened."""
    left = _truncate(left, max(width - right.cell_len - 1, 0))
    return _truncate(Text.assemble(left, " " * max(width - left.cell_len - right.cell_len, 1), right), width)


def _truncate(text: Text, width: int) -> Text:
    """Shorten a text to one line."""
    text = text.copy()
    text.truncate(max(width, 1), overflow="ellipsis")
    return text


def _sparkline(counts: Sequence[int], width: int) -> str:
    """Draw captures per second on a logarithmic scale, so that a bulk edit does not flatten everything else."""
    shown = list(counts)[-width:]
    return " " * (width - len(shown)) + "".join(
        _BARS[min(round(_STEPS_A_DOUBLING * math.log2(1 + count)), len(_BARS) - 1)] for count in shown
    )


def _ago(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{seconds:.0f} s ago"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
