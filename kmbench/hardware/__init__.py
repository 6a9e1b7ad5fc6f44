"""Hardware profiles: what an operation costs on a machine, measured or cited."""
