"""Fault tests on a real cluster: `make test-faults`, or one row by `pytest -s -m faults tests/faults -k driver_killed-train`.

Three hosts in network namespaces (network.py) run a Ray cluster under a supervisor (cluster.py). Each row of the table (rows.py)
lets a job (jobs.py) begin one stage, does its fault there, and waits until the run has ended, for a bounded time. A run that
ended with an error, or was itself killed, is submitted again. Then the store is compared with that of a run in one process.
They need Linux, root and iproute2, and are skipped with the reason otherwise. WSSS_RAY_FAULT_TABLE=FILE keeps the table.
"""
