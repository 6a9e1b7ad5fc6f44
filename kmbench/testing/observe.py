"""Runs a strategy for the conformance kit, in a process of its own, and prints what it saw.

    python -m kmbench.testing.observe plain|compiled|prints NAME... [-p FILE]...

``plain``, with NUMBA_DISABLE_JIT=1: every hook is watched while it runs as Python, so whatever goes
wrong has a hook and a line.  ``compiled``: the engine as it is used.  ``prints``: the fingerprint
of every hook.
"""

import argparse
import hashlib
import json
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import numpy as np

from kmbench.core.events import NR_CAUSES
from kmbench.core.fingerprint import fingerprint, plain
from kmbench.core.hooks import RETURNS
from kmbench.core.jit import JIT
from kmbench.core.objects import NOMEM
from kmbench.core.state import BY_CACHE
from kmbench.errors import KmbenchError, did_you_mean
from kmbench.plugins import load_plugins
from kmbench.simulate import Simulation
from kmbench.strategy import Strategy
from kmbench.testing.capabilities import Limits, promised
from kmbench.testing.rows import Row, checked
from kmbench.testing.stream import SETUP, events

NR_EVENTS = 1200
TIMED_EVENTS = 20_000
EVENT_S = 10  # of CPU time, for one event as plain Python: thousands of times what one takes
LAST_S = 60  # for all that happens when everything goes
SMALL = 1 << 20  # tables up to so many bytes are compared after every event


def where(hook: Callable) -> str:
    """``file:line`` of a hook."""
    code = plain(hook).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


class Watch:
    """Watches hooks that run as Python."""

    def __init__(self, strategy: Strategy):
        self.problems: list[dict] = []
        self.charged: Counter = Counter()
        self.seconds: Counter = Counter()
        self.ran: list[str] = []
        self._inner = [0]
        self._running: list[str] = []
        self._files = {plain(hook).__code__.co_filename for hook in strategy.hooks.values()}
        self.places = {name: f"{name} ({where(hook)})" for name, hook in strategy.hooks.items()}

    def tell(self, check: str, message: str) -> None:
        """Keep the first problem of each check."""
        if all(problem["check"] != check for problem in self.problems):
            self.problems.append({"check": check, "message": message})

    def hook(self, name: str, func: Callable) -> Callable:
        """`func`, watched."""
        place = self.places[name]

        def call(S, P, *arguments):
            counters, paths = S.counter.copy(), S.path["count"].copy()
            self._inner.append(0)
            self._running.append(name)
            began = time.perf_counter()
            answer = func(S, P, *arguments)
            self.seconds[name] += time.perf_counter() - began
            self._running.pop()
            net = int(S.counter["usage"][2:4].sum() - counters["usage"][2:4].sum())
            self.charged[name] += net - self._inner.pop()
            self._inner[-1] += net
            self.ran.append(name)
            self._counters(place, S, counters, paths)
            self._answer(name, place, S, answer, arguments)
            return answer

        return call

    def misfit(self, what: str) -> None:
        """A value was stored that its field cannot hold: say which hook and line did."""
        own = [at for at in traceback.extract_stack() if at.filename in self._files]
        if self._running and own:
            place = f"{self._running[-1]} ({own[-1].filename}:{own[-1].lineno})"
            self.tell("fields", f"{place}: {what}")

    def _counters(self, place: str, S, before: np.ndarray, paths: np.ndarray) -> None:
        if (S.counter["usage"] < 0).any():
            row = int(np.argmax(S.counter["usage"] < 0))
            pages = int(S.counter["usage"][row])
            which = ("memory", "kmem")[row % 2]
            self.tell(
                "counters",
                f"{place}: leaves the {which} counter of group {row // 2} at {pages} pages: more "
                f"was uncharged than charged",
            )
        for field in ("watermark", "failcnt"):
            if (S.counter[field] < before[field]).any():
                self.tell("counters", f"{place}: {field} of a counter goes down")
        if (S.path["count"] < paths).any():
            self.tell("counters", f"{place}: the count of a path goes down")

    def _answer(self, name: str, place: str, S, answer, arguments: tuple) -> None:
        if RETURNS[name] != "row" or isinstance(answer, float) or answer is None:
            return
        if not isinstance(answer, (int, np.integer, np.bool_)):
            raise KmbenchError(f"{place}: returns a {type(answer).__name__}, not a whole number")
        if name == "select":
            caches = int(S.k["nr_caches"][0])
            fits = -NR_CAUSES < answer < caches
            if fits and answer > 0 and answer != arguments[2]:
                fits = S.cache["root"][answer] == arguments[2]
                self._copy(place, S, int(answer), int(arguments[1]))
            expected = f"cache {arguments[2]}, a copy of it, or -CAUSE_*"
        else:
            groups = int(S.k["nr_groups"][0])
            fits = answer in (NOMEM, BY_CACHE) or -NR_CAUSES < answer < groups
            expected = f"a group below {groups}, 0, -CAUSE_* or NOMEM"
        if not fits:
            self.tell("rows", f"{place}: returns {answer}; expected {expected}")

    def _copy(self, place: str, S, copy: int, memcg: int) -> None:
        owner = int(S.cache["memcg"][copy])
        at = memcg
        while at and at != owner:
            at = int(S.memcg["parent"][at])
        if owner and not at:
            self.tell(
                "copies", f"{place}: an object of group {memcg} comes from a copy of group {owner}"
            )

    def raised(self, error: Exception, strategy: Strategy) -> None:
        """Say which hook and line raised."""
        frames = traceback.extract_tb(error.__traceback__)
        codes = {
            (plain(hook).__code__.co_filename, plain(hook).__code__.co_name): name
            for name, hook in strategy.hooks.items()
        }
        hook = next((codes[at] for at in ((f.filename, f.name) for f in frames) if at in codes), "")
        own = [frame for frame in frames if frame.filename in self._files]
        at = own[-1] if own else frames[-1]
        check = "bounds" if isinstance(error, IndexError) else "plain"
        kind = "" if isinstance(error, Endless) else f"{type(error).__name__}: "
        words = _missing(error) or f"{kind}{error}"
        self.tell(check, f"{hook} ({at.filename}:{at.lineno}): {words}".strip())


class Endless(Exception):
    """Something that ought to have ended long ago."""


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Raise Endless, at the line that is being run, after so much time of this process."""

    def end(number, frame):
        raise Endless(f"no end within {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _missing(error: Exception) -> str:
    """Which table or field an error is about that does not exist; empty if it is another one."""
    if not isinstance(error, AttributeError) or error.name is None:
        return ""
    if isinstance(error.obj, Row):
        known = error.obj.rows.dtype.names
        return f"no field {error.name!r} in that record{did_you_mean(error.name, known)}"
    if isinstance(error.obj, tuple) and hasattr(error.obj, "_fields"):
        return f"there is no table {error.name!r}{did_you_mean(error.name, error.obj._fields)}"
    return ""


def tables_digest(S, P) -> str:
    """A hash of all small tables."""
    whole = hashlib.blake2b(digest_size=8)
    for table in (*S, *P):
        if isinstance(table, np.ndarray) and table.nbytes <= SMALL:
            whole.update(np.ascontiguousarray(table).view(np.uint8))
    return whole.hexdigest()


def conservation(S) -> str:
    """What does not add up, or nothing."""
    k = S.k[0]
    pages = int(k["nr_free_pages"] + k["nr_slab_pages"] + k["nr_kernel_pages"])
    if pages != SETUP.machine.memory_pages:
        return f"free, slab and kernel pages are {pages} of {SETUP.machine.memory_pages}"
    true, billed = int(S.memcg["true_slab"].sum()), int(S.memcg["billed_slab"].sum())
    unbilled = int(S.unbilled["bytes"].sum())
    if true != billed + unbilled:
        return f"objects hold {true} bytes, {billed} are billed and {unbilled} are not"
    return ""


def watched(strategy: Strategy, watch: Watch | None = None) -> tuple[Simulation, Watch]:
    """A simulation of the kit's machine with every hook watched and every index checked."""
    watch = watch or Watch(strategy)
    simulation = Simulation(SETUP, strategy)
    simulation.S, simulation.P = (
        type(tables)(
            *(
                checked(name, table, watch.misfit) if isinstance(table, np.ndarray) else table
                for name, table in tables._asdict().items()
            )
        )
        for tables in (simulation.S, simulation.P)
    )
    for name, hook in strategy.hooks.items():
        setattr(simulation.engine.hooks, name, watch.hook(name, plain(hook)))
    return simulation, watch


def observe_plain(strategy: Strategy) -> dict:
    """Every hook watched, on the stream of the kit; ends at the first exception."""
    watch = Watch(strategy)
    digests: list[str] = []
    ran: list[list[str]] = []
    complete, endless, limits = False, False, Limits()
    try:
        with no_longer_than(EVENT_S):
            simulation, _ = watched(strategy, watch)
        stream = events(NR_EVENTS)
        for i in range(len(stream)):
            watch.ran = []
            limits.before(simulation.S)
            with no_longer_than(EVENT_S):
                simulation.feed(stream[i : i + 1])
            limits.after(simulation.S, _places(watch, sorted(set(watch.ran))))
            digests.append(tables_digest(simulation.S, simulation.P))
            ran.append(sorted(set(watch.ran)))
            if wrong := conservation(simulation.S):
                watch.tell("conservation", f"{_places(watch, ran[-1])}: after event {i}, {wrong}")
        if wrong := limits.verdict(simulation.S):
            watch.tell("limits", wrong)
        with no_longer_than(LAST_S):
            _teardown(simulation, watch)
        watch.problems += promised(strategy, watched)
        complete = True
    except KmbenchError as error:
        watch.tell("plain", str(error))
    except Exception as error:
        endless = isinstance(error, Endless)
        watch.raised(error, strategy)
    slowest = max(watch.seconds, key=watch.seconds.get, default="")
    return {
        "problems": watch.problems, "complete": complete, "endless": endless,
        "digests": digests, "ran": ran,
        "places": watch.places,
        "slowest": watch.places.get(slowest, "no hook"),
    }  # fmt: skip


def _places(watch: Watch, names: list[str]) -> str:
    return ", ".join(watch.places[name] for name in names) or "no hook"


def _teardown(simulation: Simulation, watch: Watch) -> None:
    """After everything is gone: no charge, no metadata, no copy, nothing in stocks."""
    pages = simulation.teardown()
    S = simulation.S
    if pages:
        parts = [
            f"{watch.places[name]} charged {net:+,} pages in all"
            for name, net in watch.charged.items()
            if net
        ]
        watch.tell(
            "leak",
            f"{pages} pages stay charged after everything is gone: {'; '.join(parts) or 'no hook'}",
        )
    waiting = int(S.k["work_tail"][0] - S.k["work_head"][0])
    if waiting and "run_work" in watch.places:
        watch.tell(
            "work", f"{watch.places['run_work']}: {waiting} work items still wait at the end"
        )
    left = int(S.k["metadata"][0])
    if left:
        makers = [n for n in ("select", "cg_create", "slab_new", "post_alloc") if n in watch.places]
        watch.tell(
            "leak", f"{_places(watch, makers)}: {left} bytes of copies or vectors stay at the end"
        )


class Pace(Thread):
    """Ends the process when compiled code does not end: it hears of no signal, but other threads
    run beside it.

    `end` is called with what was told to be going on.
    """

    def __init__(self, end: Callable[[int], None]):
        super().__init__(daemon=True)
        self.end = end
        self.since, self.event = float("inf"), -1

    @contextmanager
    def of(self, event: int) -> Iterator[None]:
        """An event goes on, or with -1 many."""
        self.event, self.since = event, time.process_time()
        try:
            yield
        finally:
            self.since = float("inf")

    def run(self) -> None:
        """Look at it now and then."""
        while time.process_time() - self.since < EVENT_S:
            time.sleep(0.2)
        self.end(self.event)


def observe_compiled(strategy: Strategy, pace: Pace) -> dict:
    """The compiled engine on the same stream, twice, and its speed beside `none`."""
    try:
        return _compiled(strategy, pace)
    except KmbenchError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"compiled, it raises {type(error).__name__}: {error}"}


def _compiled(strategy: Strategy, pace: Pace) -> dict:
    simulations = [Simulation(SETUP, strategy) for _ in range(2)]
    stream = events(NR_EVENTS)
    digests: list[list[str]] = []
    for simulation in simulations:
        digests.append([])
        for i in range(len(stream)):
            with pace.of(i):
                simulation.feed(stream[i : i + 1])
            digests[-1].append(tables_digest(simulation.S, simulation.P))
    return {
        "digests": digests[0], "again": digests[1], "cache_hit": simulations[0].cache_hit,
        "ns": nanoseconds(strategy, pace),
        "none_ns": nanoseconds(Strategy("none", "", ""), pace),
    }  # fmt: skip


def nanoseconds(strategy: Strategy, pace: Pace) -> float:
    """Engine time of an event, the best of several rounds."""
    stream = events(TIMED_EVENTS, seed=1)
    best = float("inf")
    for _ in range(5):
        simulation = Simulation(SETUP, strategy)
        began = time.perf_counter()
        with pace.of(-1):
            simulation.feed(stream)
        best = min(best, time.perf_counter() - began)
    return 1e9 * best / len(stream)


def observe_prints(strategy: Strategy) -> dict:
    """Fingerprints, which must be the same in every process."""
    try:
        return {name: fingerprint([hook]) for name, hook in strategy.hooks.items()}
    except KmbenchError as error:
        return {"error": str(error)}


MODES = ("plain", "compiled", "prints")


def main() -> None:
    """Observe the strategies and print one JSON object; up to one that does not end compiled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("names", nargs="+")
    parser.add_argument("-p", "--plugin", action="append", default=[])
    options = parser.parse_args()
    assert (options.mode == "plain") != JIT, "plain runs with NUMBA_DISABLE_JIT=1"
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what plugins print is no answer
    plugins = load_plugins(tuple(options.plugin))
    seen: dict[str, dict] = {}
    name = ""

    def end(event: int) -> None:
        with answer:
            json.dump({**seen, name: {"endless": event}}, answer)
        os._exit(0)

    pace = Pace(end)
    observe = {
        "plain": observe_plain,
        "compiled": lambda strategy: observe_compiled(strategy, pace),
        "prints": observe_prints,
    }[options.mode]
    pace.start()
    for name in options.names:
        seen[name] = observe(plugins.strategy(name))
    with answer:
        json.dump(seen, answer)


if __name__ == "__main__":
    main()
