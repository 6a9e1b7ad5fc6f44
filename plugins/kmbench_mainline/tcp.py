"""tcp_memcontrol: Glauber Costa, "per-cgroup tcp buffers", v9, December 2011; merged for 3.3.

Source: Linux 3.5 include/net/sock.h:sk_memory_allocated_add, net/core/sock.c:__sk_mem_schedule,
net/ipv4/tcp_memcontrol.c.  Buffers of sockets are charged by the page to a counter of their own;
slab objects are not accounted at all.

What the events can express of it: which group allocated a socket buffer, not for which socket.  So
the pages are those that a group's buffers (``caches``) fill together, not each socket's, which
rounds up less.  A charge over the limit drops the buffer (the end "SUPPRESS" without the sender's
exception).  Buffers made in softirq, that is most of what is received, belong to a socket the
events do not name: they stay unaccounted.  Pressure, tcp_mem and fair shares are left out.  The
counter stands in the place of kmem, its limit is that of kmem; memory.kmem.tcp has both apart.
Sockets keep the group alive.
"""

from kmbench.core.build import Accounting
from kmbench.core.paths import Ops
from kmbench.design import Fact
from kmbench.parameters import Parameter
from kmbench_policies.byte_unit import Choices, byte_unit, charge_bytes, post_alloc

BUFFERS = ("skbuff_*",)

tcp_memcontrol = byte_unit(
    Choices(vectors=False),
    caches=BUFFERS,
    charge_ops=Ops(br=3, ptr=2, atom=1, call=1),
    accounting=Accounting(counter_locked=True),
    parameters=(Parameter("caches", list(BUFFERS), "caches of socket buffers, as patterns"),),
    facts={
        "unit": Fact("socket buffers, by the page", post_alloc),
        "caches": Fact("shared", post_alloc),
        "counters": Fact("its own, in the place of kmem", charge_bytes),
    },
    name="tcp-memcontrol",
    description="socket buffers alone, charged by the page to a counter of their own",
    source='Glauber Costa, "per-cgroup tcp buffers", v9, Dec 2011; Linux 3.3',
)
