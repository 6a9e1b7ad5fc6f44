"""Clients in groups of their own send messages: several groups charge pages on every CPU.

Shakeel Butt's netperf runs (TCP_SENDFILE over loopback, April 2025): every client is in its own
memory cgroup, its buffers are charged where it runs and where its packets are processed.  Here a
client works on `spread` CPUs in turn, so that a CPU serves clients * spread / CPUs groups one after
the other.  A message is an sk_buff, which is not accounted, and a block of pages, which is; both
are given back on its CPU.  Sender and receiver of a client keep a CPU busy each.
"""

from kmbench.core.events import (
    ALLOC,
    FREE,
    GFP_KERNEL,
    GFP_KERNEL_ACCOUNT,
    PAGE_ALLOC,
    PAGE_FREE,
    PAGES_KMALLOC,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated

STEPS = 4  # of a message: sk_buff, pages, and both back


def fill(S, W, batch):
    """Rounds of one message a client, which take turns after every step."""
    w = W.at[0]
    n = 0
    while n < len(batch) and w.done < w.total:
        client = w.done % w.clients
        step = w.done // w.clients
        turn = step // STEPS
        step %= STEPS
        of_pages = step == 1 or step == 2
        e = batch[n]
        e.t = w.done * w.interval
        e.obj = 2 * client + 1 + of_pages
        e.task = client + 1
        e.memcg = 2 + client
        if of_pages:
            e.op = PAGE_ALLOC if step == 1 else PAGE_FREE
            e.gfp = w.gfp_pages
            e.cache = w.kind
            e.arg = w.order
        else:
            e.op = ALLOC if step == 0 else FREE
            e.gfp = w.gfp
            e.cache = 1
            e.arg = 0
        # neighbours overlap: client i has the CPUs from i * CPUs / clients on
        e.cpu = (client * w.cpus // w.clients + turn % w.spread) % w.cpus
        w.done += 1
        n += 1
    return n


def open_messages(parameters: dict, host: Host) -> OpenWorkload:
    """`messages` of each of `clients` clients."""
    clients = parameters["clients"]
    skb = make_cache(
        "skbuff_head_cache", 224, era=host.era, cpus=host.cpus, page_size=host.page_size,
        align=64,
    )  # fmt: skip
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era,
        (skb, *kmalloc_caches(host.era, host.cpus, host.page_size)),
        (GroupSpec("/", 0), *(GroupSpec(f"/client{i}") for i in range(clients))),
        2 * clients + 1,
    )
    total = STEPS * clients * parameters["messages"]

    def prepare(S, W):
        W.at["total"], W.at["clients"], W.at["cpus"] = total, clients, host.cpus
        W.at["spread"], W.at["interval"] = min(parameters["spread"], host.cpus), 50
        W.at["order"], W.at["kind"] = parameters["order"], PAGES_KMALLOC
        W.at["gfp"], W.at["gfp_pages"] = GFP_KERNEL, GFP_KERNEL_ACCOUNT

    tables = {
        "at": table(
            1, done="i8", total="i8", clients="i8", cpus="i8", spread="i8", interval="i8",
            order="i8", kind="i8", gfp="i8", gfp_pages="i8",
        )
    }  # fmt: skip
    opened = generated(setup, fill, tables, prepare, total)
    return opened._replace(running=clients, think_ns=parameters["think_ns"], busy=2 * clients)


messages = Workload(
    name="messages",
    description="clients in groups of their own, each working on several CPUs in turn",
    source="netperf runs of Shakeel Butt, memcg: multi-memcg percpu charge stock, April 2025",
    open=open_messages,
    parameters=(
        Parameter("clients", 6, "clients, each in its own group", "clients", 1),
        Parameter("messages", 2000, "messages of each client", "messages", 1),
        Parameter("spread", 12, "CPUs that a client works on in turn", "cpus", 1),
        Parameter("order", 2, "pages of a message: 2**order", "", 0),
        Parameter("think_ns", 0, "what a message costs besides its memory", "ns", 0),
    ),
)
