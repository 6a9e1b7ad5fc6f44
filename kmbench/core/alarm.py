"""The engine's timer for reclaim: it goes off for whoever is due first."""

from kmbench.core.jit import inlined, outlined
from kmbench.core.state import UNLIMITED

JIFFY = 4_000_000  # ns; HZ 250


@inlined
def arm(S):
    """Set the timer by what kswapd and the listener asked for."""
    k = S.k[0]
    k.timer_due = min(S.vm[0].kswapd_due, S.vm[0].notify_due)
    k.next_due = min(k.next_due, k.timer_due)


@inlined
def clock(S):
    """Model time within an operation, of which reclaim has taken ``vm.cost`` ns so far."""
    return S.k[0].now + S.vm[0].cost


@inlined
def enter_reclaim(S):
    """A task begins to reclaim: what earlier operations spent is not this one's."""
    vm = S.vm[0]
    if vm.cost_of != S.k[0].nr_events:
        vm.cost_of = S.k[0].nr_events
        vm.cost = 0


@outlined
def let_userland_run(S, wait):
    """Reclaim takes time, in which the listener may act; with `wait` the task gives it a tick more
    (schedule_timeout(1) between rounds without progress).  Whether memory or swap came free."""
    k = S.k[0]
    vm = S.vm[0]
    began = k.now
    spent = vm.cost
    room = k.nr_free_pages + vm.swap_free
    until = began + spent + (JIFFY if wait else 0)
    while vm.notify_due <= until:
        k.now = max(vm.notify_due, began)
        spent = max(spent, k.now - began)
        vm.cost = 0
        vm.notify_due = UNLIMITED
        S.R.notified(S, S.U)
    k.now = began
    vm.cost = spent
    arm(S)
    return k.nr_free_pages + vm.swap_free > room


@inlined
def call_back(S, due):
    """Have the listener's hook ``notified`` called at `due`, unless it is sooner already."""
    S.vm[0].notify_due = min(S.vm[0].notify_due, due)
    arm(S)
