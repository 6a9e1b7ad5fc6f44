"""``kmbench`` and ``python -m kmbench``: quiet whenever the user interrupts, also while imports are
going on, and however the interrupt ends what was being done."""

import sys


def main() -> int:
    """Run the process's command line and return its exit code; 130 when interrupted.

    Does not return while compiled code of an interrupted command goes on: the process ends.
    """
    noticed = []

    def notice(*_):
        noticed.append(True)
        raise KeyboardInterrupt

    sys.unraisablehook = _not_lost
    try:
        from signal import SIG_IGN, SIGINT, getsignal, signal

        if getsignal(SIGINT) != SIG_IGN:  # as it is for what a script has in the background
            signal(SIGINT, notice)
        from kmbench.cli.app import main as run

        return run(interrupted=lambda: bool(noticed))
    except KeyboardInterrupt as request:
        return _interrupted(str(request))
    except Exception:
        if noticed:  # an import made this of it
            return _interrupted("")
        raise
    finally:  # from here on an interrupt just ends the process
        from signal import SIG_DFL, SIGINT, getsignal, signal

        if getsignal(SIGINT) is notice:
            signal(SIGINT, SIG_DFL)


def _not_lost(ignored) -> None:
    """An interrupt that came in a callback of the interpreter, which drops it, comes once more."""
    if ignored.exc_type is KeyboardInterrupt:
        from _thread import interrupt_main, start_new_thread

        start_new_thread(interrupt_main, ())  # not from here, which is still that callback
    else:
        sys.__unraisablehook__(ignored)


def _interrupted(what_goes_on: str) -> int:
    print(f"kmbench: interrupted{what_goes_on and '; '}{what_goes_on}", file=sys.stderr, flush=True)
    if what_goes_on:  # the interpreter would wait for its threads, which may never end
        import os

        os._exit(INTERRUPTED)
    return INTERRUPTED


INTERRUPTED = 130

if __name__ == "__main__":
    sys.exit(main())
