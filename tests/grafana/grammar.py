"""How Grafana reads a provisioned alert rule, written down from its source, so that a test need not trust our own belief.

What is interpolated: `pkg/services/provisioning/values/values.go` and `pkg/services/provisioning/alerting/rules_types.go` (the query model
is used raw; annotations are raw or, in newer versions, read `${NAME}` only). Math: `pkg/expr/mathexp/parse/lex.go`, `funcs.go`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SYMBOLS = frozenset({"!", "&&", "||", ">", "<", ">=", "<=", "==", "!=", "+", "-", "*", "**", "/", "%"})
_MATH_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |   \$\{(?P<braced>[\w\s]+)\}
    |   \$(?P<plain>\w+)
    |   (?P<function>[^\W\d_][^\W\d]*)
    |   (?P<number>[\d.]+)
    |   (?P<symbol>[!<>=&|+\-*/%]+)
    |   (?P<other>[(),]|"[^"]*")
    """,
    re.VERBOSE,
)
# Environment variables as Go's os.Expand finds them: $NAME, ${NAME}, and the shell's one-character names, which are empty here.
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<plain>[A-Za-z_]\w*)|[*#$@!?\-0-9])")


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """Return a text as Grafana interpolates it: `$$` is a dollar sign; `$NAME` and `${NAME}` are variables, empty when unset."""
    return "$".join(
        _VARIABLE.sub(lambda found: environ.get(found["braced"] or found["plain"] or "", ""), part) for part in text.split("$$")
    )


def math_names(expression: str) -> tuple[set[str], set[str]]:
    """Return the variables and the functions of a math expression. Raises ValueError where Grafana's lexer reports an error."""
    variables: set[str] = set()
    functions: set[str] = set()
    position = 0
    while position < len(expression):
        token = _MATH_TOKEN.match(expression, position)
        if token is None:
            raise ValueError(f"Grafana's lexer rejects {expression[position:]!r}")
        if token["symbol"] is not None and token["symbol"] not in _SYMBOLS:
            raise ValueError(f"Grafana has no operator {token['symbol']!r}")
        variables |= {name for name in (token["braced"], token["plain"]) if name}
        functions |= {token["function"]} if token["function"] else set()
        position = token.end()
    return variables, functions
