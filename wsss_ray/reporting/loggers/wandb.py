"""Log to Weights & Biases: one run there for each run in the store. The account comes from `wandb login` or WANDB_API_KEY.

With WANDB_MODE=offline nothing is sent. The files stay in the run's folder, and `wandb sync` sends them later. The report is
never sent, because it holds pictures of the data.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from wsss_ray.reporting.loggers.logger import Logger, Run, RunState, Sink, StepFigures, plain

_SENDS_NOTHING = ("offline", "dryrun", "disabled")


class Wandb(Logger):
    """Log the job's fields, versions and stage ids as configuration, and figures as STAGE/NAME over STAGE/step."""

    needs = "wandb"
    project: str = Field(default="wsss-ray", min_length=1, description="Name of the project.")
    entity: str | None = Field(default=None, description="User or team that owns the project. null: your own account.")

    def check(self) -> None:
        """See `Logger.check`. Without an account the client would ask for one at the terminal while the run goes on."""
        super().check()
        wandb = _client()
        try:
            if wandb.setup().settings.mode not in _SENDS_NOTHING and not wandb.login(prompt=False, verify=False):
                mend = "Run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline."
                raise ValueError(f"run.loggers: wandb has no account. {mend}")
        except wandb.Error as error:
            raise ValueError(f"run.loggers: wandb: {error}") from error

    def open(self, run: Run) -> Sink:
        """See `Logger.open`."""
        return _WandbRun(_client(), self, run)


def _client() -> Any:
    """Import wandb, silenced and without its error reports to its makers."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


class _WandbRun(Sink):
    def __init__(self, wandb: Any, logger: Wandb, run: Run) -> None:
        self.id = run.before or secrets.token_hex(4)
        folder = run.store.run_path(run.name) if run.store.is_local else tempfile.mkdtemp(prefix="wsss-ray-wandb-")
        if run.store.is_local:
            run.store.guarded(f"{folder}/wandb")  # it writes there by itself
        self.run: Any = wandb.init(
            project=logger.project,
            entity=logger.entity,
            name=run.name,
            id=self.id,
            resume="allow",
            dir=folder,
            config={**run.fields(), **{f"tag.{name}": value for name, value in run.tags.items()}},
            reinit="create_new",
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, init_timeout=30),
        )
        self._stages: set[str] = set()

    def write(self, rows: Sequence[StepFigures]) -> None:
        """See `Sink.write`."""
        for row in rows:
            stage = plain(row.stage, also=" ")
            if stage not in self._stages:
                self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
                self._stages.add(stage)
            self.run.log({f"{stage}/step": row.step} | {f"{stage}/{name}": value for name, value in row.figures.items()})

    def close(self, state: RunState, report: str | None) -> None:
        """See `Sink.close`."""
        self.run.finish(exit_code=0 if state == "finished" else 1)
