"""MLflow: one run there for each run here, on the server that the job or MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from wsss_ray.loggers.logger import Logger, Row, Run, Sink, State, plain

_PARAMS, _METRICS, _LENGTH = 100, 1000, 500  # what a request takes, and a parameter's text on any server
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; we try again ourselves
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Mlflow(Logger):
    """Fields of the job as parameters, figures as metrics STAGE/NAME, versions and stage ids as tags, the report as artifact."""

    needs = "mlflow"
    experiment: str = Field(default="wsss-ray", min_length=1, description="Name of the experiment; made if it is not there.")
    tracking_uri: str | None = Field(default=None, description="Address of the server; null: MLFLOW_TRACKING_URI.")

    @field_validator("tracking_uri")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        from wsss_ray.filesystems import CREDENTIALS, holds_credentials

        if value is not None and holds_credentials(value):
            raise ValueError(CREDENTIALS.replace("AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_USERNAME"))
        return value

    def check(self) -> None:
        """See `Logger.check`."""
        super().check()
        if not (self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
            raise ValueError("run.loggers: mlflow has no server; set its tracking_uri, or MLFLOW_TRACKING_URI")

    def open(self, run: Run) -> Sink:
        """See `Logger.open`."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return _MlflowRun(MlflowClient(self.tracking_uri), self.experiment, run)


class _MlflowRun(Sink):
    def __init__(self, client: Any, experiment: str, run: Run) -> None:
        self.client = client
        self.id = self._go_on(run.before) or self._begin(experiment, run)

    def _go_on(self, run_id: str | None) -> str | None:
        """The id of a run that the server still has."""
        from mlflow.exceptions import MlflowException

        try:
            if run_id is None or self.client.get_run(run_id).info.lifecycle_stage != "active":
                return None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _begin(self, experiment: str, run: Run) -> str:
        from mlflow.entities import Param

        known = self.client.get_experiment_by_name(experiment)
        place = known.experiment_id if known is not None else self.client.create_experiment(experiment)
        tags = {plain(name, also="/ "): value for name, value in run.tags.items()}
        run_id: str = self.client.create_run(place, run_name=run.name, tags=tags).info.run_id
        params = [Param(plain(name, also="/ "), str(value)[:_LENGTH]) for name, value in run.fields().items()]
        for first in range(0, len(params), _PARAMS):
            self.client.log_batch(run_id, params=params[first : first + _PARAMS])
        return run_id

    def write(self, rows: Sequence[Row]) -> None:
        """See `Sink.write`. A figure with the time and the step of one that is there is the same figure to the server."""
        from mlflow.entities import Metric

        metrics = [
            Metric(plain(f"{row.stage}/{name}", also="/ "), value, int(1000 * row.time), row.step)
            for row in rows
            for name, value in row.figures.items()
        ]
        for first in range(0, len(metrics), _METRICS):
            self.client.log_batch(self.id, metrics=metrics[first : first + _METRICS])

    def close(self, state: State, report: str | None) -> None:
        """See `Sink.close`."""
        if report is not None:
            self.client.log_text(self.id, report, "report.html")
        self.client.set_terminated(self.id, status=_STATUS[state])
