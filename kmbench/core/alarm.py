"""The engine's timer for reclaim: it goes off for whoever is due first."""

from kmbench.core.jit import inlined, outlined
from kmbench.core.state import UNLIMITED


@inlined
def arm(S):
    """Set the timer by what kswapd and the listener asked for."""
    k = S.k[0]
    k.timer_due = min(S.vm[0].kswapd_due, S.vm[0].notify_due)
    k.next_due = min(k.next_due, k.timer_due)


@outlined
def let_userland_run(S, wait):
    """Reclaim takes time, in which the listener may act; with `wait` the task yields to it
    (cond_resched between rounds).  Whether it did."""
    k = S.k[0]
    vm = S.vm[0]
    began = k.now
    acted = False
    while vm.notify_due <= began + vm.cost or (wait and vm.notify_due < UNLIMITED):
        k.now = max(vm.notify_due, began)
        vm.cost = max(vm.cost, k.now - began)
        vm.notify_due = UNLIMITED
        S.R.notified(S, S.U)
        acted = True
    k.now = began
    arm(S)
    return acted


@inlined
def call_back(S, due):
    """Have the listener's hook ``notified`` called at `due`, unless it is sooner already."""
    S.vm[0].notify_due = min(S.vm[0].notify_due, due)
    arm(S)
