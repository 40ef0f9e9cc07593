"""A head of Ray as `ray start` makes it, with token authentication, and a line that can be cut."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsss_ray.deploy.address import Access
from wsss_ray.runners.jobs import JobServer

ROOT = Path(__file__).parents[1]
TOKEN = "a-token-for-tests-0123456789abcdef"

GATED = '''
"""A data set of a user's own: its images are made when a file is there, and tell from where this package was imported."""

import io
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image

import wsss_ray
from wsss_ray.data.codecs import encode_labels
from wsss_ray.core.component import LocalPath
from wsss_ray.data.source import Item, Raw, Source


class Gated(Source):
    folder: Annotated[str, LocalPath()]
    broken: bool = False
    shard_size: int = 8

    def class_names(self):
        return ("square", "bar")

    def splits(self):
        return ("weak",)

    def has_masks(self, split):
        return True

    def items(self, split):
        return [Item(image_id=f"{split}-{k}", tags=(k % 2,)) for k in range(16)]

    def load(self, item):
        deadline = time.monotonic() + 300
        while not Path(self.folder, "open").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        Path(self.folder, "imported").write_text(wsss_ray.__file__)
        if self.broken:
            raise ValueError("the picture is torn")
        rng = np.random.default_rng(int(item.image_id[5:]))
        image, mask = rng.integers(90, 150, (32, 32, 3)).astype(np.uint8), np.zeros((32, 32), np.uint8)
        image[8:24, 8 : 24 - 8 * item.tags[0]], mask[8:24, 8 : 24 - 8 * item.tags[0]] = 250, item.tags[0] + 1
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        return Raw(image=buffer.getvalue(), mask=encode_labels(mask))
'''


@dataclass
class Head:
    url: str
    environment: dict[str, str]

    def command(self, *arguments):
        return [sys.executable, "-m", "wsss_ray", *map(str, arguments)]

    def call(self, *arguments, **environment):
        return subprocess.run(
            self.command(*arguments), env=self.environment | environment, text=True, capture_output=True, timeout=500, check=False
        )

    def server(self):
        return JobServer(Access(self.url, TOKEN))


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(what, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def listens(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def in_session(leader):
    """The processes of a session, by /proc: also those that made a process group of their own."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


@contextmanager
def running_head():
    """A head whose workers do not see this checkout, with a token, and nothing below the home folder."""
    gcs, dashboard, agent, client = free_ports(4)
    left_out = ("PYTHONPATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")
    clean = {name: value for name, value in os.environ.items() if name not in left_out}
    with tempfile.TemporaryDirectory(prefix="rj", dir="/tmp", ignore_cleanup_errors=True) as folder:
        token = Path(folder, "token")
        token.write_text(TOKEN)
        common = clean | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
        binaries = str(Path(sys.executable).parent)
        ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        ports += [f"--ray-client-server-port={client}", "--min-worker-port=0", "--max-worker-port=0"]
        command = [f"{binaries}/ray", "start", "--head", "--block", "--disable-usage-stats", *ports, "--dashboard-host=127.0.0.1"]
        command += ["--num-cpus=4", "--object-store-memory=200000000", f"--temp-dir={folder}/r"]
        with open(f"{folder}/head.log", "w") as log:
            environment = common | {"PATH": f"{binaries}:{os.environ['PATH']}"}
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        there = Head(f"http://127.0.0.1:{dashboard}", common | {"PYTHONPATH": str(ROOT)})
        try:
            wait_for(lambda: process.poll() is None and listens(dashboard))
            wait_for(lambda: there.call("ps", "--address", there.url).returncode == 0)
            yield there
        finally:
            for one in in_session(process.pid):  # asked to end, `ray start` takes half a minute
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.wait()
            wait_for(lambda: not in_session(process.pid))


class Relay:
    """A port that hands connections on to another, until it is cut."""

    def __init__(self, target):
        self.target, self.open_ones = target, []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listening,), daemon=True).start()

    def _accept(self, listening):
        with suppress(OSError):
            while True:
                here = listening.accept()[0]
                there = socket.create_connection(("127.0.0.1", self.target))
                self.open_ones += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    @contextmanager
    def cut(self):
        for one in (self.listening, *self.open_ones):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        yield
        self.open_ones = []
        self.listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listening,), daemon=True).start()
