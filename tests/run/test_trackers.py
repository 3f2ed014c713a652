"""Numbers arrive where they are sent: TensorBoard's own files are read back, the others have fakes with their calls."""
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest


class Fake(ModuleType):
    """Notes the calls of functions with the given signatures; any other call is an error."""

    def __init__(self, name, **functions):
        super().__init__(name)
        self.__spec__, self.calls = ModuleSpec(name, None), []
        for function, signature in functions.items():
            setattr(self, function, self.noted(function, signature))

    def noted(self, function, signature):
        def call(*args, **kwargs):
            signature(*args, **kwargs)  # refuses what the real one does not take
            self.calls.append((function, *args, kwargs))
            return SimpleNamespace(info=SimpleNamespace(run_id='abc'))
        return call

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def fakes(monkeypatch):
    made = dict(
        wandb=Fake('wandb', init=lambda project, name, config, tags, resume, id: None, log=lambda data: None,
                   finish=lambda: None),
        mlflow=Fake('mlflow', set_experiment=lambda experiment_name: None,
                    start_run=lambda run_id=None, run_name=None: None, log_params=lambda params: None,
                    log_metrics=lambda metrics, step=None: None, end_run=lambda: None),
        trackio=Fake('trackio', init=lambda project, name, config, resume: None, log=lambda metrics, step=None: None,
                     finish=lambda: None))
    made['wandb'].summary = {}
    for name, fake in made.items():
        monkeypatch.setitem(sys.modules, name, fake)
    return SimpleNamespace(**made)


def test_epochs_and_report_arrive_and_a_run_goes_on(run, photos, tmp_path, fakes):
    argv = [photos, '--epochs', '2', '--val-fraction', '0.2', '--log-to', 'tensorboard,wandb', 'mlflow', 'trackio',
            '--log-project', 'pets']
    assert run([*argv, '--stop-epoch', '1'])[0] == 0
    assert fakes.mlflow.named('end_run') and fakes.wandb.named('finish') and fakes.trackio.named('finish')
    code, _, err = run([*argv, '--resume', 'auto'])
    assert code == 0, err
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())

    rows = [call[0] for call in fakes.wandb.named('log')]
    assert [row['epoch'] for row in rows] == [0, 1] and all('train_loss' in row and 'eval_top1' in row for row in rows)
    assert fakes.wandb.summary['test_top1'] == report['top1']
    assert [call[-1]['project'] for call in fakes.wandb.named('init')] == ['pets', 'pets']

    starts = [call[-1] for call in fakes.mlflow.named('start_run')]
    assert [(start['run_id'], start['run_name']) for start in starts] == [(None, 'e'), ('abc', None)]
    steps = [(call[-1].get('step'), call[0]) for call in fakes.mlflow.named('log_metrics')]
    assert [step for step, _ in steps] == [0, 1, None] and steps[0][1]['train_loss'] == rows[0]['train_loss']
    assert steps[-1][1]['test_balanced_top1'] == report['balanced_top1']
    parameters = {name: value for call in fakes.mlflow.named('log_params') for name, value in call[0].items()}
    assert parameters['epochs'] == '2' and parameters['model'] == 'test_vit' and 'mixup' not in parameters

    assert [call[-1]['resume'] for call in fakes.trackio.named('init')] == ['never', 'allow']
    assert [call[-1].get('step') for call in fakes.trackio.named('log')] == [0, 1, None]

    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / 'runs/e/tensorboard'))
    events.Reload()
    losses = events.Scalars('train/loss')
    assert [event.step for event in losses] == [0, 1]
    assert [event.value for event in losses] == pytest.approx([row['train_loss'] for row in rows])
    assert events.Scalars('report/test_top1')[0].value == pytest.approx(report['top1'])


def test_a_name_that_is_none_and_a_package_that_is_missing_are_told_at_once(run, photos, tmp_path, monkeypatch):
    code, _, err = run([photos, '--log-to', 'mlfow'])
    assert code == 2 and "Unknown --log-to 'mlfow' (did you mean 'mlflow'?)" in err
    monkeypatch.setitem(sys.modules, 'trackio', None)
    code, _, err = run([photos, '--log-to', 'trackio'])
    assert code == 2 and "--log-to trackio needs the extra: pip install 'timm-smalldata[trackio]'" in err
    assert not (tmp_path / 'runs' / 'e').exists()


def test_one_that_fails_ends_no_training(run, photos, fakes):
    """Not on its first number, and not at its end; what it cannot do is one line."""
    def broken(*args, **kwargs):
        raise ConnectionError('the server is gone')

    fakes.mlflow.log_metrics, fakes.trackio.finish = broken, broken
    code, _, err = run([photos, '--val-fraction', '0.2', '--log-to', 'mlflow', 'trackio'])
    said = [line for line in err.splitlines() if line.startswith('warning')]
    assert code == 0 and len(said) == 2 and all(line.endswith('the server is gone') for line in said)
    assert len(fakes.trackio.named('log')) == 2  # an epoch and the report
    fakes.mlflow.start_run = broken
    code, _, err = run([photos, '--val-fraction', '0.2', '--log-to', 'mlflow', '--experiment', 'f'])
    assert code == 2 and 'tracker mlflow cannot begin: the server is gone' in err.splitlines()[-1]
