"""Replays a recording of a real kernel: a trace file, or a capture folder."""

from hashlib import sha256
from pathlib import Path
from threading import Lock

from kmbench.errors import UsageProblem
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload

KEEP_EVENTS = 4_000_000  # 128 MB


def open_replay(parameters: dict, host: Host) -> OpenWorkload:
    """Open the recording; machine, caches and groups are the recorded ones, not the scenario's."""
    from kmbench.trace.capture import is_capture, read_capture
    from kmbench.trace.format import open_trace

    if not parameters["path"]:
        raise UsageProblem("workload replay: path: expected a trace file or a capture folder")
    path = Path(host.folder, parameters["path"])
    if is_capture(path):
        capture = read_capture(path)
        digest = sha256(capture.events.tobytes()).hexdigest()
        return OpenWorkload(
            capture.setup, lambda S: iter([capture.events]), digest, len(capture.events)
        )
    trace = open_trace(path)
    small = trace.info.events <= KEEP_EVENTS
    # the strategies of a run replay the same events: a small trace is read once, by who comes first
    kept: list = []
    reading = Lock()

    def batches(S):
        if not small:
            yield from open_trace(path).batches()
            return
        with reading:
            if not kept:
                kept.extend(trace.batches())
        yield from kept

    return OpenWorkload(trace.setup, batches, trace.info.sha256, trace.info.events)


replay = Workload(
    name="replay",
    description="replay of a recording, from the state that the kernel was in",
    source="recordings of Linux 6.18",
    open=open_replay,
    parameters=(Parameter("path", "", "trace file or capture folder, from the scenario's folder"),),
)
