"""Batches of kfree_rcu(), one CPU after the other, the plain way.

Linux 6.18 mm/slab_common.c: kvfree_call_rcu, kfree_rcu_monitor, kvfree_rcu_bulk.
"""

NEVER = (1 << 63) - 1


def drain(items, *, wait, full, jiffy, grace):
    """When each object is given back.

    items: (t, cpu, again) per object: handed over at `t`, its slot seen allocated at `again`.
    """
    out = [NEVER] * len(items)
    for cpu in {item[1] for item in items}:
        todo = [(t, 0, n) for n, (t, on, _) in enumerate(items) if on == cpu]
        todo += [(again, 1, n) for n, (t, on, again) in enumerate(items)
                 if on == cpu and t < again < NEVER]  # fmt: skip
        batches, waiting, due = [], [], NEVER
        for now, is_proof, n in [*sorted(todo), (NEVER, 2, -1)]:
            if waiting and due <= now:
                young = items[waiting[-1]][0] > due - grace
                batches.append((due + (grace if young else 0), waiting))
                waiting, due = [], NEVER
            if is_proof == 0:
                due = due if waiting else now + wait
                waiting.append(n)
                due = min(due, now + jiffy) if len(waiting) >= full else due
            elif is_proof == 1 and n in waiting:
                at = waiting.index(n) + 1
                batches.append((now - 1, waiting[:at]))
                waiting = waiting[at:]
                due = items[waiting[0]][0] + wait if waiting else NEVER
        for ready, members in batches:
            ready = min([ready] + [items[n][2] - 1 for n in members if items[n][2] > items[n][0]])
            for n in members:
                out[n] = max(ready, items[n][0])
    return out
