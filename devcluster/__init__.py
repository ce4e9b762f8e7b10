"""A real Kubernetes API server on this machine, for tests, the demo and development.

The control plane is built once from the pinned Go modules in `modules/` and cached; nodes are
played by KWOK. Everything listens on loopback only. Start it with `python -m devcluster up`.
"""
