"""Recording a real kernel: tracing, snapshots and slab walks, assembled into one capture folder."""
