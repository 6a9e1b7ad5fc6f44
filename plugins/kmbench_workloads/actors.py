"""One compiled generator for all workloads that are made of actors: it carries their scripts out.

An actor (a task, a connection, a container) is at one step of its script (:mod:`.scripts`) and is
due at one time; the one that is due first goes on, of several the one with the lowest number.  All
events of a step have the time of the step; each takes `event_ns` of its CPU, which the actors on it
share: one goes on when what it did is through.

What steps allocate are instances of operations (:mod:`.objects`), kept in piles: an instance has a
range of handles, one for every object that it may have.  A pile is a queue; one that holds names is
an array of instances, which exist or do not.

In a closed loop (`feedback`) the generator writes that many events at a time and then looks at what
became of them: an instance of which an allocation failed gives back what it got, and its actor goes
on at the step that its script has for it.
"""

from kmbench.core.events import (
    ACCESS,
    ALLOC,
    CG_CREATE,
    CG_OFFLINE,
    FREE,
    GFP_KERNEL,
    MARK,
    PAGE_ALLOC,
    PAGE_FREE,
    USER_ALLOC,
    USER_FREE,
)
from kmbench.core.jit import by_table, inlined, outlined
from kmbench_workloads.variates import chance, choose, duration, shuffle

# steps
MAKE = 0  # one more instance of a pile; waits for `value` ns and tries again while it is full
DROP = 1  # free a pile's first instance, `percent` times of 100; waits while it is empty, 0: not
WAIT = 2  # for a duration of `kind` and mean `value`
LOOP = 3  # go back to step `to` until it was done `value` times
CREATE = 4  # make the actor's group, a child of `value`
OFFLINE = 5  # remove it
WAKE = 6  # the actor `value` numbers on (`kind` 1: from twice the number) begins, if below `to`
LOOK = 7  # at a name of a pile, by popularity; it is made if it is not there
WALK = 8  # at the next name of a pile, in turn
SHUFFLE = 9  # let a full pile drop its instances in random order
USER = 10  # `value` user pages of kind `kind`
PHASE = 11  # of the run begins (MARK)
CEASE = 12  # all actors end
HOP = 13  # to the next CPU, of `value` from its first one on
GIVE = 14  # `value` user pages of kind `kind` back
END = 15

MOST_DEPTH = 3  # loops inside one another


@inlined
def earlier(W, i, j):
    """Whether actor `i` is due before actor `j`."""
    a = W.actor[i].t
    b = W.actor[j].t
    return a < b or (a == b and i < j)


@inlined
def sift_down(W, nr):
    """Let the first of `nr` waiting actors find its place."""
    i = 0
    moving = W.heap[0].actor
    while True:
        child = 2 * i + 1
        if child >= nr:
            break
        if child + 1 < nr and earlier(W, W.heap[child + 1].actor, W.heap[child].actor):
            child += 1
        if not earlier(W, W.heap[child].actor, moving):
            break
        W.heap[i].actor = W.heap[child].actor
        i = child
    W.heap[i].actor = moving


@inlined
def begin(W, actor, t):
    """An actor begins at `t`."""
    w = W.at[0]
    i = w.waiting
    w.waiting += 1
    W.actor[actor].t = t
    while i > 0 and earlier(W, actor, W.heap[(i - 1) >> 1].actor):
        W.heap[i].actor = W.heap[(i - 1) >> 1].actor
        i = (i - 1) >> 1
    W.heap[i].actor = actor


@inlined
def put(e, a, op, obj, cache, arg, gfp):
    """Fill in one event of an actor."""
    e.t = a.t
    e.op = op
    e.memcg = a.memcg
    e.task = a.task
    e.cpu = a.cpu
    e.obj = obj
    e.cache = cache
    e.arg = arg
    e.gfp = gfp


@inlined
def make(W, batch, n, a, p, instance):
    """Allocate an instance: the number of events so far."""
    base = p.first + instance * p.width
    for row in range(p.first_item, p.first_item + p.items):
        item = W.item[row]
        item.owed += item.thousandths
        obj = base + item.offset
        while item.owed >= 1000:
            item.owed -= 1000
            op = ALLOC if item.cache > 0 else PAGE_ALLOC
            put(batch[n], a, op, obj, abs(item.cache), item.order, item.gfp)
            W.held[obj].on = 1
            obj += 1
            n += 1
    return n


@inlined
def drop(W, batch, n, a, p, instance):
    """Free what an instance has: the number of events so far."""
    base = p.first + instance * p.width
    for row in range(p.first_item, p.first_item + p.items):
        item = W.item[row]
        for obj in range(base + item.offset, base + item.offset + item.most):
            if W.held[obj].on:
                W.held[obj].on = 0
                put(batch[n], a, FREE if item.cache > 0 else PAGE_FREE, obj, 0, 0, 0)
                n += 1
    return n


@inlined
def look_up(W, batch, n, a, p, name):
    """Look a name up: by the run's own dentry cache if there is one (ACCESS), else by `held`."""
    obj = p.first + name * p.width
    if W.at[0].cached:
        put(batch[n], a, ACCESS, obj, W.item[p.first_item].cache, 0, GFP_KERNEL)
        return n + 1
    if W.held[obj].on:
        return n
    return make(W, batch, n, a, p, name)


@inlined
def never(S, memcg):
    """Without reclaim nobody is killed."""
    return False


@inlined
def kills(S, memcg):
    """Whether the OOM killer got the group."""
    return S.user[memcg].kills > 0


killed = by_table("user", never, kills)


@outlined
def find_failed(S, W, batch):
    """What failed of what was written last: its instances give back what they got."""
    n = 0
    for row in range(len(W.pile)):
        p = W.pile[row]
        while p.checked and p.seen < p.tail:
            instance = p.seen % p.capacity
            p.seen += 1
            base = p.first + instance * p.width
            missing = 0
            for obj in range(base, base + p.width):
                if W.held[obj].on and S.obj[obj].slab == 0:
                    W.held[obj].on = 0
                    missing += 1
            if missing:
                a = W.actor[p.checked - 1]
                p.failed += 1
                a.failed = 1
                n = drop(W, batch, n, a, p, instance)
    return n


@inlined
def step_of(W, batch, n, number):
    """Carry one step of an actor out: the number of events so far."""
    w = W.at[0]
    a = W.actor[number]
    if a.failed:
        a.failed = 0
        a.pc = a.otherwise
    s = W.step[a.pc]
    a.pc += 1
    first = n
    row = s.pile + (a.at if s.shared else a.pile)
    if s.turn > 1:
        row += (a.shift + W.count[number * MOST_DEPTH + s.depth].nr) % s.turn
    if s.op == MAKE:
        p = W.pile[row]
        if p.tail - p.head < p.capacity:
            n = make(W, batch, n, a, p, p.tail % p.capacity)
            p.tail += 1
        else:
            a.t += s.value
            a.pc -= 1
    elif s.op == DROP:
        p = W.pile[row]
        if p.head < p.tail:
            instance = p.head % p.capacity
            if p.shuffled:
                instance = W.order[p.order + instance].at
            p.head += 1
            if s.percent >= 100 or chance(W.fates, s.percent):
                n = drop(W, batch, n, a, p, instance)
        elif s.value > 0:
            a.t += s.value
            a.pc -= 1
    elif s.op == WAIT:
        a.t += duration(W.waits, W.part, s.kind, s.value)
    elif s.op == LOOP:
        c = W.count[number * MOST_DEPTH + s.depth]
        c.nr += 1
        if c.nr < s.value:
            a.pc = s.to
        else:
            c.nr = 0
    elif s.op == CREATE:
        put(batch[n], a, CG_CREATE, 0, 0, s.value, 0)
        n += 1
    elif s.op == OFFLINE:
        put(batch[n], a, CG_OFFLINE, 0, 0, 0, 0)
        n += 1
    elif s.op == WAKE:
        woken = number * (1 + s.kind) + s.value
        if woken < s.to:
            begin(W, woken, a.t)
    elif s.op == LOOK:
        p = W.pile[row]
        n = look_up(W, batch, n, a, p, choose(W.choices, W.alias, p.capacity))
    elif s.op == WALK:
        p = W.pile[row]
        n = look_up(W, batch, n, a, p, p.tail % p.capacity)
        p.tail += 1
    elif s.op == SHUFFLE:
        p = W.pile[row]
        for i in range(p.capacity):
            W.order[p.order + i].at = i
        shuffle(W.fates, W.order, p.order, p.capacity)
        p.shuffled = 1
    elif s.op == USER:
        put(batch[n], a, USER_ALLOC, 0, s.kind, s.value, GFP_KERNEL)
        n += 1
    elif s.op == GIVE:
        put(batch[n], a, USER_FREE, 0, s.kind, s.value, 0)
        n += 1
    elif s.op == PHASE:
        put(batch[n], a, MARK, 0, 0, s.value, 0)
        n += 1
    elif s.op == CEASE:
        w.waiting = 0
    elif s.op == HOP:
        a.cpu = (a.home + ((a.cpu - a.home) % w.cpus + 1) % s.value) % w.cpus
    else:
        w.waiting -= 1
        W.heap[0].actor = W.heap[w.waiting].actor
    if n > first:  # the CPU's time: who shares it waits
        c = W.cpu[a.cpu]
        c.free = max(c.free, a.t) + (n - first) * w.event_ns
        a.t = c.free
    return n


def fill(S, W, batch):
    """Carry steps out until the batch is full, or `feedback` events are written."""
    w = W.at[0]
    n = find_failed(S, W, batch) if w.feedback else 0
    while w.waiting > 0 and n + w.most <= len(batch) and (w.feedback == 0 or n < w.feedback):
        number = W.heap[0].actor
        if w.feedback and killed(S, W.actor[number].memcg):
            W.actor[number].pc = w.end
        n = step_of(W, batch, n, number)
        if w.waiting > 0:
            sift_down(W, w.waiting)
    return n
