"""Memory cgroups of an imported trace: from its cgroup events, or one per command or task.

Events: include/trace/events/cgroup.h (4.13 and later): cgroup_mkdir, cgroup_rmdir, cgroup_release
with ``root= id= level= path=``, cgroup_attach_task with ``dst_root= dst_id= dst_level= dst_path=
pid=``.  Only the hierarchy of the first such event counts, since tasks have one memory group.
"""

import numpy as np

from kmbench.core.setup import GroupSpec
from kmbench.trace.importers.names import Names
from kmbench.trace.importers.scan import ATTACH, MKDIR, RELEASE, RMDIR

# kernel threads by the name they give themselves; they live in the root group
_KTHREADS = (
    "<idle>", "swapper", "kthreadd", "kworker/", "ksoftirqd/", "migration/", "rcu_", "rcuop/",
    "rcuos/", "rcuog/", "rcub/", "rcuc/", "kswapd", "kcompactd", "khugepaged", "khungtaskd",
    "ksmd", "kdevtmpfs", "kauditd", "oom_reaper", "writeback", "kblockd", "kintegrityd",
    "watchdog/", "watchdogd", "cpuhp/", "idle_inject/", "irq/", "jbd2/", "ext4-rsv-conver",
    "xfsaild/", "xfs-", "scsi_eh_", "flush-", "kthrotld", "khelper", "bdi-default", "events/",
    "kdmflush", "md0_", "loop", "nfsd", "kpsmoused", "ata_sff", "btrfs-", "dmcrypt_write",
)  # fmt: skip


def is_kthread(command: str) -> bool:
    """Whether `command` looks like a kernel thread or the idle task."""
    return command.startswith(_KTHREADS)


class Groups:
    """Rows of the groups, the root first."""

    def __init__(self) -> None:
        self.specs = [GroupSpec("/", 0)]
        self.other_hierarchy = 0
        self._root: int | None = None
        self._by_path: dict[str, int] = {"/": 1}
        self._by_id: dict[int, int] = {}
        self._names: dict[str, int] = {"/": 1}

    def add(self, name: str, parent: int = 1, online: bool = True) -> int:
        """A new group's row; a name that was used before gets a number."""
        times = self._names[name] = self._names.get(name, 0) + 1
        if times > 1:
            name = f"{name}#{times}"
        self.specs.append(GroupSpec(name, parent, online=online))
        return len(self.specs)

    def _existing(self, path: str) -> int:
        """Row of a path that must exist now; its parents too."""
        missing = []
        while path not in self._by_path:
            missing.append(path)
            path = path.rpartition("/")[0] or "/"
        row = self._by_path[path]
        for path in reversed(missing):
            row = self._by_path[path] = self.add(path, row)
        return row

    def resolve(self, rows: np.ndarray, names: Names) -> None:
        """Put the group's row into ``site`` and its parent's into ``gfp`` of cgroup events.

        ``site`` stays 0 for events that say nothing about a group of the memory hierarchy.
        """
        for at in np.flatnonzero(rows["op"] >= MKDIR):
            row = rows[at]
            row["site"] = 0
            if self._root is None:
                self._root = int(row["size"])
            if row["size"] != self._root:
                self.other_hierarchy += 1
                continue
            op, key = int(row["op"]), int(row["key"])
            path = "/" + names.text(int(row["name"])).strip("/")
            if op == MKDIR:
                if path == "/" or path in self._by_path:
                    continue
                parent = self._existing(path.rpartition("/")[0] or "/")
                row["gfp"] = parent
                row["site"] = self._by_path[path] = self.add(path, parent, online=False)
                self._by_id[key] = int(row["site"])
            elif op == ATTACH:
                row["site"] = self._existing(path)
            elif op == RMDIR:
                if path == "/":
                    continue
                row["site"] = self._existing(path)
                del self._by_path[path]
                self._by_id[key] = int(row["site"])
            elif op == RELEASE and key in self._by_id:
                group = self._by_id.pop(key)
                if self._by_path.get(path) != group:
                    row["site"] = group
