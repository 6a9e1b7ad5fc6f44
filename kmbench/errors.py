"""What can go wrong, in one line each.

Every error a user can cause or cure is a :class:`KmbenchError`; the command line prints its message
as ``kmbench: error: ...`` and leaves with its exit code.  Anything else is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["KmbenchError", "PluginProblem", "UsageProblem", "did_you_mean", "one_line", "unknown"]


MOST_NAMES = 12  # listed where no name is near


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


class KmbenchError(Exception):
    """Base of all errors with a message for users; exit code 3."""

    exit_code = 3

    def __str__(self) -> str:
        """The message on one line, whatever library text it quotes."""
        return one_line(super().__str__())


class UsageProblem(KmbenchError):
    """Bad input: options, scenarios, traces, files; exit code 2."""

    exit_code = 2

    def within(self, where: str) -> UsageProblem:
        """The same problem, told with the file or field that it was found in."""
        return UsageProblem(f"{where}: {self}")


class PluginProblem(KmbenchError):
    """A plugin that cannot be loaded, compiled or run; exit code 3."""

    exit_code = 3


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of ``choices``; without one those that hold the
    word, or all."""
    by_fold = {choice.casefold(): choice for choice in sorted(choices)}
    near = get_close_matches(word.casefold(), by_fold, n=1)
    if near:
        return f"; did you mean {by_fold[near[0]]!r}?"
    holding = [name for fold, name in by_fold.items() if word and word.casefold() in fold]
    names = holding or list(by_fold.values())
    more = ", ..." if len(names) > MOST_NAMES else ""
    return f"; known: {', '.join(names[:MOST_NAMES])}{more}" if names else ""


def unknown(kind: str, word: str, choices: Iterable[str]) -> UsageProblem:
    """The error for a name that is none of ``choices``."""
    return UsageProblem(f"unknown {kind} {word!r}{did_you_mean(word, choices)}")
