"""Which flags an entry point knows: Hydra's own. All else is KEY=VALUE, without dashes."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser


def check_arguments(arguments: Sequence[str], sweeps: bool) -> None:
    """Raises ValueError for flags that do not exist, that stand in the way, or that sweep what is never swept."""
    parser = get_args_parser()
    for each in (each for each in arguments if each.startswith("-")):
        name, equals, value = each.partition("=")
        flag = parser._option_string_actions.get(name)
        if flag is None or (equals and flag.nargs == 0):
            raise ValueError(f"There is no flag {each!r}: write {name.lstrip('-')}={value or 'VALUE'}, without dashes.")
        if flag.dest == "multirun" and not sweeps:
            raise ValueError(f"{each} is for training alone: give one value for each option here.")
    parser.exit_on_error = False
    try:
        _, misplaced = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise ValueError(f"These flags cannot be read ({error}): --help shows how to write them.") from error
    if misplaced:
        raise ValueError(f"{misplaced[0]!r} stands behind a flag that stands behind others like it: put flags first.")
