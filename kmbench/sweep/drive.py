"""Runs the jobs of a sweep on an executor, and sees to it that every run ends up as a row.

A task is a batch of jobs that lasts about a second.  A task that is lost, because its process
crashed, was killed or ran out of time, says nothing about which of its runs is to blame; so
its runs are suspects and are made again one at a time, with nothing beside them.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kmbench.errors import KmbenchError, UsageProblem
from kmbench.executor import ExecutorPlugin, Place, Pool
from kmbench.plugins import Plugins
from kmbench.runs import failed_row, make_plans
from kmbench.store.dataset import write_runs
from kmbench.sweep.plan import Job, Sweep, finished
from kmbench.sweep.work import TIMED_OUT, Order, Report, greet, last_words, run_jobs

__all__ = ["Drive", "Outcome"]

TASK_S = 1.0  # a task shall last so long
MOST_JOBS = 1000  # of a task
IN_FLIGHT = 2  # tasks a worker, so that none waits for the client


@dataclass
class Outcome:
    """How a sweep went."""

    ok: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # run_id -> error
    seconds: float = 0.0
    lost_tasks: int = 0


class Drive:
    """One sweep on one executor."""

    def __init__(
        self,
        sweep: Sweep,
        done: set[str],
        order: Order,
        executor: ExecutorPlugin,
        place: Place,
        plugins: Plugins,
        *,
        fail_fast: bool = False,
        tell: Callable[[int], None] = lambda nr: None,
    ):
        """`done`: runs not to be made again.  `tell` hears how many more runs have ended."""
        if order.timeout_s and not executor.contained:
            raise UsageProblem(
                f"executor {executor.name}: a run that takes too long cannot be ended in the "
                f"process of the sweep itself: leave out --timeout"
            )
        self.order, self.executor, self.place, self.plugins = order, executor, place, plugins
        self.fail_fast, self.tell = fail_fast, tell
        left = (job.without(done) for job in sweep.jobs)
        self.waiting = deque(job for job in left if job.run_ids)
        self.suspects: deque[Job] = deque()
        self.flying: dict[Future, list[Job]] = {}
        self.lost: Counter[str] = Counter()
        self.job_s = 0.0  # mean so far; 0: not known
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Make all runs; KmbenchError when the sweep cannot go on."""
        began = time.perf_counter()
        try:
            while self.waiting or self.suspects or self.flying:
                with ExitStack() as stack:
                    pool = stack.enter_context(self.executor.open(self.place))
                    self._greet(pool)
                    self._use(pool)
        finally:
            shutil.rmtree(Path(self.order.out) / "sweeps" / "running", ignore_errors=True)
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    def _greet(self, pool: Pool) -> None:
        """A worker that cannot even start must not be blamed on a run; and all start at once."""
        try:
            for answer in [pool.executor.submit(greet) for _ in range(max(pool.workers(), 1))]:
                answer.result()
        except Exception as error:
            words = f"executor {self.executor.name}: no worker can start: {error}"
            raise KmbenchError(words) from error

    def _use(self, pool: Pool) -> None:
        """Keep the pool busy until everything is done, or the pool is broken."""
        broken = False
        try:
            while not broken and (self.waiting or self.suspects or self.flying):
                broken = not self._submit(pool)
                done, _ = wait(self.flying, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    broken |= not self._receive(future)
                if self.fail_fast and self.outcome.failed:
                    self.waiting.clear()
                    self.suspects.clear()
                    for future in [f for f in self.flying if f.cancel()]:
                        del self.flying[future]
            for future in list(self.flying):  # of a broken pool
                self._receive(future)
        finally:
            for future in self.flying:
                future.cancel()

    def _submit(self, pool: Pool) -> bool:
        """Hand out tasks; False when the pool takes none any more."""
        while True:
            if self.suspects:
                if self.flying:
                    return True
                jobs = [self.suspects.popleft()]
                home = self.suspects
            elif self.waiting and len(self.flying) < IN_FLIGHT * max(pool.workers(), 1):
                jobs = self._batch(max(pool.workers(), 1))
                home = self.waiting
            else:
                return True
            try:
                future = pool.executor.submit(run_jobs, jobs, self.order)
            except BrokenExecutor:
                home.extendleft(reversed(jobs))
                return False
            self.flying[future] = jobs

    def _batch(self, workers: int) -> list[Job]:
        size = 1
        if self.job_s:
            fair = -(-len(self.waiting) // (IN_FLIGHT * workers))
            size = max(1, min(round(TASK_S / self.job_s), fair, MOST_JOBS))
        return [self.waiting.popleft() for _ in range(min(size, len(self.waiting)))]

    def _receive(self, future: Future) -> bool:
        """Take a task's reports, or see what became of its runs; False: the pool is broken."""
        jobs = self.flying.pop(future)
        try:
            reports: list[Report] = future.result(timeout=60)
        except KmbenchError:
            raise
        except Exception as error:  # whatever an executor has for a task that is lost
            self._lose(jobs, error)
            return not isinstance(error, BrokenExecutor)
        if self.order.stream:
            write_runs(self.order.out, [report.stored for report in reports])
        mean = sum(report.seconds for report in reports) / len(jobs)
        self.job_s = 0.7 * self.job_s + 0.3 * mean if self.job_s else mean
        for report in reports:
            self._count(report.run_id, report.error)
        return True

    def _count(self, run_id: str, error: str) -> None:
        if error:
            self.outcome.failed[run_id] = error
        else:
            self.outcome.ok += 1
        self.tell(1)

    def _lose(self, jobs: list[Job], error: Exception) -> None:
        self.outcome.lost_tasks += 1
        there = finished(Path(self.order.out), [i for job in jobs for i in job.run_ids])
        for run_id in there:  # stored before the worker was lost
            self._count(run_id, "")
        left = [part for job in jobs for part in job.apart() if part.run_ids[0] not in there]
        if len(left) > 1 or len(jobs[0].run_ids) > 1:
            self.suspects.extend(left)
            return
        for job in left:
            (run_id,) = job.run_ids
            self.lost[run_id] += 1
            if self.lost[run_id] <= self.order.retries:
                self.suspects.append(job)
            else:
                self._give_up(job, error)

    def _give_up(self, job: Job, error: Exception) -> None:
        """The worker of this run was lost each time it was tried, alone in the end."""
        (plan,) = make_plans(job.scenario, job.strategies, self.plugins)
        trace = last_words(self.order.out, plan.run_id) or f"{type(error).__name__}: {error}"
        words = f"its worker process ended: {trace.splitlines()[0]}"
        if self.order.timeout_s and trace.startswith(TIMED_OUT):
            words = f"no end within {self.order.timeout_s:g} s"
        write_runs(self.order.out, [(failed_row(plan, words, trace), {}, None)])
        self._count(plan.run_id, words)
