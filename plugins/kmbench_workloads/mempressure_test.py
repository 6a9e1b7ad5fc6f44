"""Userland that fills memory with chunks it could do without: the mempressure stress test.

One group allocates and touches chunks until it has as many as memory and swap together would hold,
and goes on for as long as it lives; a chunk that has to wait for reclaim delays the next.  After
every tenth of them it offers that many to its shrinker (TELL).  It ends after `rounds` times all
chunks, or when the OOM killer got it.
"""

from kmbench.core.events import GFP_KERNEL, MARK, TELL, USER_ALLOC, USER_ANON
from kmbench.core.geometry import kmalloc_caches
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated

TEST = 2  # row of the group


def fill(S, W, batch):
    """The next chunk, or time passing while there is no empty one."""
    w = W.at[0]
    if w.done >= w.total or S.user[TEST].kills > 0:
        return 0
    n = 1
    w.t += S.vm[0].stall_ns - w.stalled  # reclaim that the last chunk waited for
    w.stalled = S.vm[0].stall_ns
    e = batch[0]
    e.t = w.t
    e.memcg = TEST
    e.gfp = GFP_KERNEL
    e.obj = 0
    e.cpu = 0
    e.task = 1
    have = S.pool[TEST * 3 + USER_ANON].nr + S.user[TEST].swapped
    if have + w.pages > w.chunks * w.pages:
        e.op = MARK
        e.arg = 0
    else:
        e.op = USER_ALLOC
        e.cache = USER_ANON
        e.arg = w.pages
        w.offer += 1
        if w.offer >= w.tenth:
            w.offer = 0
            batch[1].t = w.t
            batch[1].op = TELL
            batch[1].memcg = TEST
            batch[1].arg = w.tenth
            n = 2
    w.done += 1
    w.t += w.every
    return n


def open_mempressure_test(parameters: dict, host: Host) -> OpenWorkload:
    """As many chunks as memory and `swap_mib` hold."""
    pages = 1024 * parameters["chunk_kib"] // host.page_size
    chunks = (host.memory_pages + (parameters["swap_mib"] << 20) // host.page_size) // pages
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era, kmalloc_caches(host.era, host.cpus, host.page_size),
        (GroupSpec("/", 0), GroupSpec("/test")), 2,
    )  # fmt: skip

    def prepare(S, W):
        W.at["pages"], W.at["chunks"], W.at["tenth"] = pages, chunks, max(1, chunks // 10)
        W.at["total"], W.at["every"] = parameters["rounds"] * chunks, parameters["every_us"] * 1000

    fields = ("pages", "chunks", "tenth", "total", "every", "t", "stalled", "done", "offer")
    tables = {"at": table(1, **dict.fromkeys(fields, "i8"))}
    return generated(setup, fill, tables, prepare, reclaims=True)


mempressure_test = Workload(
    name="mempressure_test",
    description="userland fills memory and swap with chunks that it could do without",
    source="Anton Vorontsov, mempressure_test.c, January 2013",
    open=open_mempressure_test,
    parameters=(
        Parameter("chunk_kib", 1024, "size of a chunk", "KiB", 4),
        Parameter("swap_mib", 32, "size of swap, as the test reads it", "MiB", 0),
        Parameter("rounds", 5, "chunks allocated at most, in all chunks there are", "", 1),
        Parameter("every_us", 1000, "time between chunks", "us", 1),
    ),
)
