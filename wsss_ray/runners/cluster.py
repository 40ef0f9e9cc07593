"""Start Ray in this process without its messages, or join a cluster, and list its resources."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from wsss_ray.config.resources import Node, Resources
from wsss_ray.core.plan import Stage
from wsss_ray.runners.reaper import agents_end_with_us
from wsss_ray.storage.store import RunStore

T = TypeVar("T")

_CHECK_S = 5.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # the C++ layer writes warnings for Ray's developers to the terminal
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def ray_session(*, needs_cpus: float = 0) -> Iterator[Resources]:
    """Connect to Ray and yield its resources.

    Ray is the one that this process is connected to, or the cluster at RAY_ADDRESS, or else a private one on this machine that
    ends with the block. The machines of a cluster need this package, the data and the store under the same paths. A private Ray
    gets as many logical CPUs as the machine has cores, or `needs_cpus` if that is more (on a small machine, workers take turns),
    and one more, so that an actor pool never holds the last one.

    Args:
        needs_cpus: Logical CPUs that the work needs at once. It matters for a private Ray only.

    Raises:
        ConnectionError: if the cluster refuses this process.

    Example:
        >>> with ray_session(needs_cpus=2) as have:
        ...     print(f"{have.cpus:g} CPUs, {have.gpus} GPUs")
        2 CPUs, 0 GPUs
    """
    prepare()
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    previous = before["RAY_ADDRESS"]
    given = _token.cache_info().currsize > 0  # Ray reads both variables once per process, so they must stay the same
    if not previous and not before["RAY_AUTH_MODE"] and (given or "ray" not in sys.modules):
        # A private Ray listens on all interfaces. The token keeps others out.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    import ray

    if ray.is_initialized():
        yield resources()
        return
    handler = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with _hushed():
        if previous:
            try:
                ray.init(address=previous, **quiet)
            except RuntimeError as error:  # another version of Ray or Python, or a wrong token
                raise ConnectionError(str(error)) from error
        else:
            cores = max(len(os.sched_getaffinity(0)), 2)
            cpus = int(max(cores, needs_cpus)) + 1
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=256 * 1024**2, **quiet)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # for the clients that Ray Train starts
    _take_sigterm_back(handler)
    try:
        with nullcontext() if previous else agents_end_with_us():
            try:
                _quiet()
                yield resources()
            finally:
                ray.shutdown()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _take_sigterm_back(before: Any) -> None:
    """Install the handler of SIGTERM that this process had. Ray installs two, of which one prints a C++ stack and dies."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) if before in (signal.SIG_DFL, None) else before)


@lru_cache(maxsize=1)
def _token() -> str:
    """Return the token of all private Rays of this process."""
    return secrets.token_hex(32)


def prepare() -> None:
    """Set the environment variables that Ray's libraries read. Call it before they are imported. Variables that are set stay.

    Example:
        >>> prepare()
        >>> import ray.data
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def in_a_thread(work: Callable[[], T], *, check: Callable[[], None] | None = None) -> T:
    """Run `work` in another thread and wait for it, so that Ctrl-C raises KeyboardInterrupt here.

    In the main thread, Ray Train and Ray Tune handle the signal themselves and may lose it when they are about to end.

    Args:
        work: Function to run.
        check: Called every few seconds. An error that it raises ends the wait.

    Returns:
        The result of `work`.

    Raises:
        BaseException: what `work` or `check` raises.

    Example:
        >>> in_a_thread(lambda: 6 * 7)
        42
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  result() raises it again
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while check is not None and not wait([done], timeout=_CHECK_S).done:
        check()
    return done.result()


def worker_logs() -> Path | None:
    """Return the folder where Ray keeps the output of all workers on this machine, or None."""
    import ray

    node = ray._private.worker._global_node
    folder = Path(node.get_session_dir_path()) / "logs" if node is not None else None
    return folder if folder is not None and folder.is_dir() else None


def name_in_log(stages: Iterable[Stage]) -> None:
    """Write the ids of the stages that this worker makes into its log, by which the report sorts the logs.

    Example:
        >>> name_in_log([stage])
    """
    print("makes", *(f"{stage.id} ({stage.name})" for stage in stages), file=sys.stderr, flush=True)


def logs_of(store: RunStore, run: str) -> str:
    """Return where the output of a run's workers is: in the run's folder (see `keep_logs`), or in Ray's.

    Args:
        store: Store of the run.
        run: Name of the run.

    Example:
        >>> logs_of(RunStore("/nfs/runs"), "pets")
        '/nfs/runs/runs/pets/logs'
    """
    return store.run_path(run, "logs") if store.is_local else f"{worker_logs() or '/tmp/ray/session_latest/logs'} on each machine"


def keep_logs(target: Path) -> None:
    """Copy the output of this job's workers on this machine to the run's folder. Ray must still be running.

    Args:
        target: Folder to write, created if it does not exist. A file that cannot be copied is ignored.

    Example:
        >>> keep_logs(Path(logs_of(store, "pets")))
    """
    import ray

    source = worker_logs()
    if source is None:
        return
    job = ray.get_runtime_context().get_job_id()
    with suppress(OSError):  # a full disk or a missing log must not hide why the run ended
        target.mkdir(parents=True, exist_ok=True)
        ours = (f"worker-*-{job}-*.out", f"worker-*-{job}-*.err")
        for pattern in (*ours, "ray-data/*.log", "train/**/*.log") if _is_private() else ours:
            for file in source.glob(pattern):
                if file.stat().st_size:
                    shutil.copy2(file, target / file.name)  # with its time, by which the report orders them


def resources() -> Resources:
    """Return the resources of the cluster at this moment. This process must be connected to Ray.

    Example:
        >>> with ray_session():
        ...     print(len(resources().nodes))
        1
    """
    import ray

    nodes = [
        Node(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    store = ray.cluster_resources().get("object_store_memory", 0.0)
    return Resources(nodes=tuple(nodes), object_store=store, grows=not _is_private())


def _is_private() -> bool:
    """Return True if this process has started the Ray that it uses."""
    import ray

    node = ray._private.worker._global_node
    return node is not None and bool(node.head)


@contextmanager
def _hushed() -> Iterator[None]:
    """Hold back what native code writes to the terminal, and show it only if the block fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _quiet() -> None:
    """Send Ray's own progress reports to its log files only."""
    import ray.data
    import ray.train

    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.CRITICAL)
    ray._private.worker._worker_logs_enabled = False  # log_to_driver does not silence raylets, which print pages when one dies
    ray.data.DataContext.get_current().print_on_execution_start = False
