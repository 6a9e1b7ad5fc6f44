"""What a generator says: piles of instances, scripts of actors, and who there is.

::

    Cast(
        piles={"file": Pile("file", capacity=100)},
        roles={"writer": [repeat(100, make("file"), wait(1000)), drop_all("file", 100)]},
        actors=[Actor("writer", memcg=2, cpu=0)],
    )

Every actor of a role has piles of its own, those that the role's script names; piles in `shared`
belong to all.  :func:`perform` makes a workload of it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kmbench.core.rng import seed_stream
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.errors import UsageProblem
from kmbench.workload import Host, OpenWorkload, generated
from kmbench_workloads import actors as do
from kmbench_workloads.objects import OPERATIONS, PAGES, Item, caches_of
from kmbench_workloads.variates import (
    EXPONENTIAL,
    FIXED,
    LOGNORMAL,
    QUANTILES,
    quantiles,
    stream,
    zipf,
)

__all__ = [
    "EXPONENTIAL", "FIXED", "LOGNORMAL", "MOST_ACTORS", "Actor", "Cast", "Pile", "Step",
    "at_most", "cease", "create", "drop", "drop_all", "give", "groups_of", "hop", "look", "make",
    "offline", "perform", "phase", "repeat", "shuffle", "user", "wait", "wake", "walk",
]  # fmt: skip

STATE = {"pile": ("head", "tail", "seen", "failed", "shuffled"), "actor": ("failed",)}
MOST_OBJECTS = 1 << 28  # handles of a workload
MOST_ACTORS = 1_000_000
LONGEST = 10**15  # ns that a step may take on average: eleven days
POLL = 20_000  # ns until somebody tries again for whom a pile is full or empty


class Pile(NamedTuple):
    """Instances of an operation: at most `capacity`; `nr` such piles if it is shared."""

    operation: str
    capacity: int = 1
    checked: bool = False  # failed instances are given back, in a closed loop
    nr: int = 1


class Actor(NamedTuple):
    """Who carries a role's script out: in which group, on which CPU.

    `at`: its first pile of the shared ones with a step's name; `shift`: where its turns begin.
    `start`: ns; -1: when somebody wakes it.
    """

    role: str
    memcg: int
    cpu: int
    at: int = 0
    shift: int = 0
    start: int = 0


class Step(NamedTuple):
    """One step of a script; fields as in :mod:`.actors`."""

    op: int
    pile: str = ""
    value: int = 0
    kind: int = 0
    percent: int = 100
    turn: int = 1
    depth: int = 0
    to: int = 0


class Cast(NamedTuple):
    """Everything that a workload of actors is made of.

    `otherwise`: the role's step, counted from its first, where an actor goes on whose allocation
    failed.  `names`: the shared pile that is looked up by popularity, 1 / rank**`exponent`.
    """

    roles: Mapping[str, list]
    actors: Iterable[Actor]
    piles: Mapping[str, Pile]
    shared: frozenset = frozenset()
    groups: tuple[GroupSpec, ...] = (GroupSpec("/", 0), GroupSpec("/work"))
    otherwise: Mapping[str, int] = {}  # noqa: RUF012
    names: str = ""
    exponent: float = 1.0
    cached: bool = False  # names live in the run's dentry cache: needs reclaim
    feedback: int = 0
    event_ns: int = 200
    victim: int = 0  # row of the group whose phases 1 and 2 are compared
    user_pages: bool = False


def make(pile: str, turn: int = 1, depth: int = 0) -> Step:
    """One more instance; with `turn` of one shared pile after the other, by a loop's counter."""
    return Step(do.MAKE, pile, POLL, turn=turn, depth=depth)


def drop(pile: str, percent: int = 100, waits: bool = False) -> Step:
    """Free the first instance, or with chance `percent`; `waits` until there is one."""
    return Step(do.DROP, pile, POLL if waits else 0, percent=percent)


def wait(mean: int, kind: int = FIXED) -> Step:
    """For `mean` ns, on average."""
    return Step(do.WAIT, value=mean, kind=kind)


def create(parent: int) -> Step:
    """Make the actor's group below group `parent`."""
    return Step(do.CREATE, value=parent)


def offline() -> Step:
    """Remove the actor's group."""
    return Step(do.OFFLINE)


def wake(ahead: int, below: int, twice: bool = False) -> Step:
    """The actor `ahead` of this one, or of twice its number, begins if its number is `below`."""
    return Step(do.WAKE, value=ahead, kind=twice, to=below)


def look(pile: str) -> Step:
    """Look a name up, by popularity."""
    return Step(do.LOOK, pile)


def walk(pile: str) -> Step:
    """Look the next name up, in turn."""
    return Step(do.WALK, pile)


def shuffle(pile: str) -> Step:
    """A full pile's instances are dropped in random order."""
    return Step(do.SHUFFLE, pile)


def user(pages: int, kind: int) -> Step:
    """Take user pages (USER_*)."""
    return Step(do.USER, value=pages, kind=kind)


def give(pages: int, kind: int) -> Step:
    """Give as many of the oldest user pages back (USER_*)."""
    return Step(do.GIVE, value=pages, kind=kind)


def phase(number: int) -> Step:
    """A phase of the run begins."""
    return Step(do.PHASE, value=number)


def cease() -> Step:
    """Everybody stops."""
    return Step(do.CEASE)


def hop(among: int) -> Step:
    """To the next of `among` CPUs, the actor's own first."""
    return Step(do.HOP, value=among)


def repeat(times: int, *steps) -> list:
    """Steps, `times` times; not at all for 0."""
    return [times, steps] if times else []


def drop_all(pile: str, nr: int, percent: int = 100) -> list:
    """Free `nr` instances."""
    return repeat(nr, drop(pile, percent))


def groups_of(parameters: Mapping, *names: str) -> tuple[GroupSpec, ...]:
    """The root and groups below it; the first has the limit of the parameters."""
    limit = parameters.get("limit_pages") or -1
    first, *others = names
    return (
        GroupSpec("/", 0),
        GroupSpec(first, memory_limit=limit, kmem_limit=limit if parameters.get("kmem") else -1),
        *(GroupSpec(name) for name in others),
    )


def at_most(workload: str, parameters: Mapping, most: int, *names: str) -> None:
    """Raise UsageProblem if a parameter is above `most`, or is no number (nan)."""
    for name in names:
        if not parameters[name] <= most:
            raise UsageProblem(
                f"workload {workload}: {name} = {parameters[name]}: expected at most {most}"
            )


def _flat(script: Iterable, first: int, depth: int = 0) -> list[Step]:
    """A script with its loops written out as steps; `first` is the number of the first."""
    made: list[Step] = []
    for part in script:
        if isinstance(part, Step):
            made.append(part)
        elif part and isinstance(part[0], int):
            times, steps = part
            if depth == do.MOST_DEPTH:
                raise UsageProblem(f"a script has more than {do.MOST_DEPTH} loops in one another")
            to = first + len(made)
            made += _flat(steps, to, depth + 1)
            made.append(Step(do.LOOP, value=times, depth=depth, to=to))
        else:
            made += _flat(part, first + len(made), depth)
    return made


def _most(item: Item) -> int:
    return -(-round(item.count * 1000) // 1000)


def perform(
    cast: Cast, host: Host, concern: str, extra: Iterable[str] = (), nr_events: int | None = None
) -> OpenWorkload:
    """The workload of a cast; `concern` names its streams of random numbers.

    `extra`: operations whose caches exist though no pile has them.
    """
    used = list(dict.fromkeys([*(pile.operation for pile in cast.piles.values()), *extra]))
    caches = caches_of(used, host.era, host.cpus, host.page_size)
    rows = {cache.name: row for row, cache in enumerate(caches, 1)}
    built = _Built(cast, rows, used)
    if built.handles > MOST_OBJECTS:
        raise UsageProblem(
            f"workload {concern}: up to {built.handles} objects at a time: expected at most "
            f"{MOST_OBJECTS}"
        )
    if built.longest > LONGEST:
        raise UsageProblem(
            f"workload {concern}: waits of {built.longest} ns: expected at most {LONGEST} ns"
        )
    reclaims = cast.cached or cast.user_pages
    nr_objects = built.handles * (2 if reclaims else 1)
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size), host.era, tuple(caches),
        cast.groups, max(nr_objects, 2),
    )  # fmt: skip
    tables = {
        name: table(len(rows), **fields, **dict.fromkeys(STATE.get(name, ()), "i4"))
        for name, (fields, rows) in built.tables.items()
    }
    names = cast.piles[cast.names].capacity if cast.names else 1
    tables |= {
        "heap": table(len(built.actors), actor="i4"),
        "count": table(len(built.actors) * do.MOST_DEPTH, nr="i4"),
        "held": table("object", on="u1"),
        "cpu": table("cpu", free="i8"),
        "order": table(max(1, built.order), at="i4"),
        "part": table(2 * QUANTILES, units="i8"),
        "alias": table(names, cut="i8", other="i4"),
        "waits": stream(), "choices": stream(), "fates": stream(),
        "at": table(
            1, waiting="i8", most="i8", feedback="i8", cached="i8", event_ns="i8", end="i8",
            cpus="i8",
        ),
    }  # fmt: skip

    def prepare(S, W):
        for name, (fields, given) in built.tables.items():
            for field, column in zip(fields, zip(*given, strict=True), strict=True):
                getattr(W, name)[field] = column
        at = W.at
        at["most"], at["end"], at["cpus"] = built.most, built.end, host.cpus
        at["feedback"], at["cached"], at["event_ns"] = cast.feedback, cast.cached, cast.event_ns
        W.part["units"] = quantiles()
        W.alias["cut"], W.alias["other"] = zipf(names, cast.exponent)
        for name in ("waits", "choices", "fates"):
            seed_stream(getattr(W, name), host.seed, f"{concern} {name}")
        first = sorted((a.start, i) for i, a in enumerate(built.actors) if a.start >= 0)
        at["waiting"] = len(first)  # sorted, which is a heap
        W.heap["actor"][: len(first)] = [i for _, i in first]
        if cast.victim:
            S.vm["victim"] = cast.victim

    return generated(setup, do.fill, tables, prepare, nr_events, reclaims)


class _Built:
    """The tables of a cast: by name, their fields and the rows."""

    def __init__(self, cast: Cast, rows: Mapping[str, int], used: list[str]):
        self.cast = cast
        self.actors = list(cast.actors)
        items, first_item, widths = [], {}, {}
        for operation in used:
            first_item[operation], offset = len(items), 0
            for item in OPERATIONS[operation]:
                kind, order = PAGES.get(item.what, (0, 0))
                cache = rows.get(item.what, -kind)
                most = _most(item)
                items.append(
                    (cache, round(item.count * 1000), 0, offset, most, order, item.gfp)
                )  # fmt: skip
                offset += most
            widths[operation] = offset
        self.most = max(widths.values(), default=1)
        steps, start = self._steps()
        self.end = len(steps) - 1
        piles, self.handles, self.order = [], 1, 0

        def add(name: str, owner: int) -> None:
            pile = cast.piles[name]
            width = widths[pile.operation]
            piles.append(
                (first_item[pile.operation], len(OPERATIONS[pile.operation]), width, self.handles,
                 pile.capacity, owner if pile.checked else 0, self.order)
            )  # fmt: skip
            self.handles += width * pile.capacity
            self.order += pile.capacity if name in self.shuffled else 0

        for name in self.shared:  # first, so that names have the lowest handles
            for _ in range(cast.piles[name].nr):
                add(name, 0)
        people = []
        for number, actor in enumerate(self.actors, 1):
            people.append(
                (max(actor.start, 0), start[actor.role], actor.memcg, number, actor.cpu, actor.cpu,
                 len(piles), actor.at, actor.shift,
                 start[actor.role] + cast.otherwise.get(actor.role, 0))
            )  # fmt: skip
            for name in self.own[actor.role]:
                add(name, number)
        self.tables = {
            "step": (_fields("op kind percent turn depth to pile shared", value="i8"), steps),
            "item": (
                _fields("cache thousandths owed offset most order", gfp="i8"),
                items or [(0,) * 7],
            ),
            "pile": (
                _fields("first_item items width first capacity checked order"),
                piles or [(0,) * 7],
            ),
            "actor": (
                {"t": "i8", **_fields("pc memcg task cpu home pile at shift otherwise")}, people
            ),
        }  # fmt: skip

    def _steps(self) -> tuple[list[tuple], dict[str, int]]:
        """All scripts, each followed by END, as rows; and the first row of each role."""
        cast = self.cast
        self.shared = [name for name in cast.piles if name in cast.shared]
        first_shared, at = {}, 0
        for name in self.shared:
            first_shared[name] = at
            at += cast.piles[name].nr
        steps: list[tuple] = []
        start, self.own, self.shuffled, self.longest = {}, {}, set(), 0
        for role, script in cast.roles.items():
            start[role] = len(steps)
            flat = [*_flat(script, len(steps)), Step(do.END)]
            own = dict.fromkeys(s.pile for s in flat if s.pile and s.pile not in first_shared)
            self.own[role] = list(own)
            for s in flat:
                shared = s.pile in first_shared
                pile = first_shared[s.pile] if shared else list(own).index(s.pile) if s.pile else 0
                if s.op == do.WAIT:
                    self.longest = max(self.longest, s.value)
                if s.op == do.SHUFFLE:
                    self.shuffled.add(s.pile)
                steps.append(
                    (s.op, s.kind, s.percent, s.turn, s.depth, s.to, pile, shared, s.value)
                )
        return steps, start


def _fields(names: str, **more: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), "i4") | more
