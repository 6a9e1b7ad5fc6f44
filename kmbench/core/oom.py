"""The OOM killer (Linux 3.5 and 6.18 mm/oom_kill.c:out_of_memory, mm/memcontrol.c).

A group's user memory and kernel objects are taken for one process: the victim is the group below
the target with the most anonymous memory, swap included.  It dies at once: its anonymous pages,
swap, kernel pages and objects are really freed, in order of their handles; cached objects (dentries
and inodes) lose the references that it held and stay cached.
"""

from kmbench.core.cached import put_object
from kmbench.core.events import USER_ANON
from kmbench.core.jit import inlined, outlined
from kmbench.core.memcg import is_below
from kmbench.core.objects import free_kernel_pages, free_percpu
from kmbench.core.release import settle
from kmbench.core.state import PERCPU
from kmbench.core.userpages import free_user_pages


@inlined
def badness(S, memcg):
    """Pages that killing a group's process gives back for sure."""
    return S.pool[memcg * 3 + USER_ANON].nr + S.user[memcg].swapped


@outlined
def kill_group(S, victim):
    """Free what the process of a group held."""
    k = S.k[0]
    vm = S.vm[0]
    u = S.user[victim]
    free_user_pages(S, victim, USER_ANON, S.pool[victim * 3 + USER_ANON].nr)
    vm.swap_free += u.swapped
    u.swapped = 0
    for obj in range(1, k.nr_objects):
        o = S.obj[obj]
        if o.slab == 0 or o.owner != victim:
            continue
        if S.item[obj].known:
            while S.item[obj].held > 0:
                S.item[obj].held -= 1
                put_object(S, obj)
        elif o.slab > 0:
            S.R.free_object(S, S.R, S.P, S.k[0].cpu, obj, 0)
        elif o.slab == PERCPU:
            free_percpu(S, S.R, S.P, S.k[0].cpu, obj)
        else:
            free_kernel_pages(S, S.R, S.P, S.k[0].cpu, obj)
    settle(S, S.R, S.P, S.k[0].cpu)


@inlined
def real_use(S, memcg):
    """Pages that a group's tasks really hold, kernel memory included."""
    g = S.memcg[memcg]
    used = (g.true_slab + g.true_pages) // S.k[0].page_size
    for kind in range(3):
        used += S.pool[memcg * 3 + kind].nr
    return used


@outlined
def oom_kill(S, target):
    """Kill below `target` (0: anywhere); False if there is nobody to kill."""
    victim = 0
    most = 0
    largest = 0
    most_used = 0
    for memcg in range(2, S.k[0].nr_groups):
        if target == 0 or is_below(S, memcg, target):
            pages = badness(S, memcg)
            if pages > most:
                most = pages
                victim = memcg
            if real_use(S, memcg) > most_used:
                most_used = real_use(S, memcg)
                largest = memcg
    if victim == 0:
        return False
    S.vm[0].oom_kills += 1
    if victim != largest:
        S.vm[0].wrong_kills += 1
    S.user[victim].kills += 1
    kill_group(S, victim)
    return True
