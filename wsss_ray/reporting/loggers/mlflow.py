"""Log to MLflow: one run on the server for each run in the store. The job or MLFLOW_TRACKING_URI names the server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, field_validator

from wsss_ray.core.environment import AsWritten, Filled, as_written, fill, hidden
from wsss_ray.reporting.loggers.logger import Logger, Run, RunState, Sink, StepFigures, plain

_USER = re.compile(r"(?<=://)(\$\{\w+\}:?){1,2}@")  # a user and a password that the environment has
_PARAMS, _METRICS, _LENGTH = 100, 1000, 500  # limits of a request, and of a parameter's text on any server
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; our own loop retries
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Mlflow(Logger):
    """Log the job's fields as parameters, figures as metrics STAGE/NAME, versions and ids as tags, the report as artifact."""

    needs = "mlflow"
    experiment: str = Field(default="wsss-ray", min_length=1, description="Name of the experiment, created if it does not exist.")
    tracking_uri: Annotated[str | None, AsWritten] = Field(
        default=None, description="Address of the server, which may hold ${NAME}. null: the value of MLFLOW_TRACKING_URI."
    )

    @field_validator("tracking_uri")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        return value and _without_credentials(value)

    @property
    def _uri(self) -> str | None:
        """Return the address with its variables filled in. Raises ValueError if one is not set."""
        return self.tracking_uri and fill(self.tracking_uri)

    def check(self) -> None:
        """See `Logger.check`."""
        super().check()
        name = "tracking_uri" if self.tracking_uri else "MLFLOW_TRACKING_URI"
        uri = self._uri or os.environ.get(name)
        if not uri:
            raise ValueError("run.loggers: mlflow has no server. Set its tracking_uri or MLFLOW_TRACKING_URI.")
        try:
            _without_credentials(as_written(uri))
        except ValueError as error:
            raise ValueError(f"run.loggers: mlflow: {name}: {error}") from error
        if _is_relative(uri):
            mend = "trials run in other folders. Write the whole path, such as sqlite:////home/me/mlflow.db."
            raise ValueError(f"run.loggers: mlflow: {name}: {as_written(uri)} is a path from this folder, and {mend}")

    def open(self, run: Run) -> Sink:
        """See `Logger.open`."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        with _hiding(self._uri):
            return _MlflowRun(MlflowClient(self._uri), self.experiment, run, self._uri)


def _without_credentials(uri: str) -> str:
    """Return the URI. Raise ValueError if it holds credentials itself, not as ${NAME}; the message does not show them."""
    from wsss_ray.storage.filesystems import CREDENTIALS, holds_credentials

    bare = _USER.sub("", uri)
    place = bare.partition("://")[2].partition("/")[0]
    if holds_credentials(bare) or (bare.startswith("http") and "@" in place):
        raise ValueError(CREDENTIALS.replace("AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_USERNAME"))
    return uri


@contextmanager
def _hiding(uri: str | None) -> Iterator[None]:
    """Raise errors of the block again without what the environment has for ${NAME} in the address of the server."""
    try:
        yield
    except Exception as error:
        if not isinstance(uri, Filled):
            raise
        said = hidden(str(error), uri)
        for name in re.findall(r"\$\{(\w+)\}", uri.written):
            secret = os.environ.get(name, "")
            for text in (secret, quote(secret, safe="")) if secret else ():
                said = said.replace(text, f"${{{name}}}")
        raise RuntimeError(f"{type(error).__name__}: {said}") from None


def _is_relative(uri: str) -> bool:
    """Return True for a path that starts at the current folder, and for a database in memory."""
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return not scheme.startswith(("/", "databricks"))
    if scheme.startswith("sqlite"):
        return not rest.removeprefix("///").startswith("/") or rest == "//"
    return scheme == "file" and not rest.removeprefix("//").startswith("/")


class _MlflowRun(Sink):
    def __init__(self, client: Any, experiment: str, run: Run, uri: str | None) -> None:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        self.client, self._uri = client, uri
        self._params = [Param(plain(name, also="/ "), str(value)[:_LENGTH]) for name, value in run.fields().items()]
        self.id = self._go_on(run.before) or self._begin(experiment, run)
        with suppress(MlflowException):  # an error here would start another run; `write` sends the parameters again
            self._send_params()

    def _go_on(self, run_id: str | None) -> str | None:
        """Continue a run and return its id; None if the server does not have it any more."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            found = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if found.info.lifecycle_stage != "active":
            return None
        self._params = [param for param in self._params if param.key not in found.data.params]  # none may change
        self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _begin(self, experiment: str, run: Run) -> str:
        known = self.client.get_experiment_by_name(experiment)
        place = known.experiment_id if known is not None else self.client.create_experiment(experiment)
        tags = {plain(name, also="/ "): value for name, value in run.tags.items()}
        run_id: str = self.client.create_run(place, run_name=run.name, tags=tags).info.run_id
        return run_id

    def _send_params(self) -> None:
        while self._params:
            self.client.log_batch(self.id, params=self._params[:_PARAMS])
            del self._params[:_PARAMS]

    def write(self, rows: Sequence[StepFigures]) -> None:
        """See `Sink.write`. MLflow stores a figure only once if it is sent again with the same step and time."""
        from mlflow.entities import Metric

        metrics = [
            Metric(plain(f"{row.stage}/{name}", also="/ "), value, int(1000 * row.time), row.step)
            for row in rows
            for name, value in row.figures.items()
        ]
        with _hiding(self._uri):
            self._send_params()
            for first in range(0, len(metrics), _METRICS):
                self.client.log_batch(self.id, metrics=metrics[first : first + _METRICS])

    def close(self, state: RunState, report: str | None) -> None:
        """See `Sink.close`."""
        with _hiding(self._uri):
            try:
                self._send_params()
                if report is not None:
                    self.client.log_text(self.id, report, "report.html")
            finally:
                self.client.set_terminated(self.id, status=_STATUS[state])
