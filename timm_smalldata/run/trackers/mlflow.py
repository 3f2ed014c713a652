"""MLflow: the server or folder that `MLFLOW_TRACKING_URI` names, by default MLflow's own place."""
from typing import Any, Mapping

from ...utils.files import write_text_atomic
from .base import PROJECT, Tracker, changed_settings

RUN = 'mlflow.txt'  # in the run folder: the id under which a run that is continued goes on
AT_ONCE = 100  # parameters of one request
LONGEST = 500  # letters of a value


class MLflowTracker(Tracker):
    """A run of the experiment `--log-project`."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        import mlflow
        self.mlflow: Any = mlflow
        file = self.folder / RUN
        known = file.read_text(encoding='utf-8').strip() if self.first_epoch and file.is_file() else None
        mlflow.set_experiment(self.args.log_project or PROJECT)
        run = mlflow.start_run(run_id=known, run_name=None if known else self.args.experiment)
        if known is None:
            write_text_atomic(file, run.info.run_id)
            settings = [(name, str(value)[:LONGEST]) for name, value in changed_settings(self.args).items()]
            for start in range(0, len(settings), AT_ONCE):
                mlflow.log_params(dict(settings[start:start + AT_ONCE]))

    def log(self, row: Mapping[str, float]) -> None:
        self.mlflow.log_metrics({name: value for name, value in row.items() if name != 'epoch'}, step=row['epoch'])

    def report(self, numbers: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(numbers))

    def close(self) -> None:
        self.mlflow.end_run()
