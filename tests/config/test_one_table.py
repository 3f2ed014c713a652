"""One row says all that is known of a flag, a task, a loss: a new one edits no other list."""
import json
import sys

import pytest

from timm_smalldata.config.checks import check_ranges
from timm_smalldata.config.flags import BY_DEST, FLAGS, REMOVED, Flag, removed_lines
from timm_smalldata.config.parser import parse_flags
from timm_smalldata.config.tasks import ROWS, refused_by, task_row, tasks_of
from timm_smalldata.config.yaml_file import load_config
from timm_smalldata.errors import UserError
from timm_smalldata.loss import LOSSES
from timm_smalldata.task import TASKS

DUMMIES = '''
import torch
from timm.task import TrainingTask
from timm_smalldata.config.tasks import TaskRow, register_row
from timm_smalldata.loss import CrossEntropy, LossRow, register_loss
from timm_smalldata.task import ClassificationTask


class Doubled(CrossEntropy):
    def per_class(self, x):
        return 2 * super().per_class(x)


register_loss(LossRow('doubled-ce', Doubled, published=dict(smoothing=0.25)))


class LoudTask(ClassificationTask):
    """Cross-entropy, and the mean of the images beside it."""
    name = 'loud'

    def forward(self, input, target):
        return {**super().forward(input, target), 'brightness': input.detach().mean()}


register_row('loud', TaskRow(dict(weight_decay=0.125), refuses=('mixup',)))
'''


@pytest.fixture
def dummies(tmp_path, monkeypatch):
    """A module with a loss and a task of one's own; afterwards they are gone."""
    (tmp_path / 'dummies_of_a_test.py').write_text(DUMMIES)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (LOSSES, TASKS, ROWS):
        for name, row in registry.items():
            monkeypatch.setitem(registry, name, row)
    yield 'dummies_of_a_test'
    sys.modules.pop('dummies_of_a_test', None)
    for registry, name in ((LOSSES, 'doubled-ce'), (TASKS, 'loud'), (ROWS, 'loud')):
        registry.pop(name, None)


def test_a_loss_and_a_task_of_ones_own_train(dummies, run, photos, tmp_path):
    code, _, err = run([photos, '--device-modules', dummies, '--loss', 'doubled-ce'])
    assert code == 0, err
    assert 'set by --loss doubled-ce: smoothing=0.25' in err
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    assert report['num_images'] > 0
    code, _, err = run([photos, '--device-modules', dummies, '--task', 'loud', '--experiment', 'loud'])
    assert code == 0, err
    assert 'set by --task loud: weight-decay=0.125' in err
    assert 'train_brightness' in (tmp_path / 'runs/loud/summary.csv').read_text()
    code, _, err = run([photos, '--device-modules', dummies, '--task', 'loud', '--mixup', '1', '--experiment', 'x'])
    assert code == 2 and '--mixup 1 (command line) does not go with --task loud' in err.splitlines()[-1]


def test_a_module_that_is_not_there_is_one_line(run, photos):
    code, _, err = run([photos, '--device-modules', 'no_such_module'])
    assert code == 2 and err.splitlines()[-1].startswith('error: --device-modules no_such_module:')


def test_rows_speak_of_what_exists():
    for flag in FLAGS:
        assert {*flag.excludes} <= set(BY_DEST) and {*flag.losses} <= set(LOSSES), flag.name
        assert {*tasks_of(flag)} <= set(TASKS) and set(flag.verbs) <= {'eval', 'analyse'}, flag.name
        assert flag.part in ('', 'loss', 'classifier', 'one view'), flag.name
        assert not flag.argument or flag.losses, flag.name
        assert not flag.verb_help or flag.verbs, flag.name
        check_ranges({flag.dest: flag.default}, 'default')
    assert set(ROWS) <= set(TASKS)
    for task in TASKS:
        row = task_row(task)
        assert {*row.published, *row.refuses} <= set(BY_DEST), task
        check_ranges(row.published, task)
        assert set(refused_by(task)) <= set(BY_DEST)
    for loss in LOSSES.values():
        assert set(loss.published) <= set(BY_DEST), loss.name
    assert not set(REMOVED) & set(BY_DEST)


def test_flags_of_features_go_with_every_task_that_learns_them(monkeypatch):
    monkeypatch.setitem(TASKS, 'mine', type('Mine', (), dict(supervised=False)))
    assert 'mine' in tasks_of(BY_DEST['probe']) and 'loss' in refused_by('mine') and 'head' in refused_by('mine')


def test_what_is_no_more_is_read_and_said(tmp_path):
    path, notes = tmp_path / 'args.yaml', []
    path.write_text('distillation_type: hard\nepochs: 3\n')
    assert load_config(str(path), notes) == dict(epochs=3)
    assert notes == removed_lines(['distillation_type'], str(path)) and '--distillation-type' in notes[0]
    with pytest.raises(UserError, match='--distillation-type is no more'):
        parse_flags(['--distillation-type', 'hard'])


def test_a_setting_that_an_older_run_lacks_is_what_that_run_did(photos, run, monkeypatch, tmp_path):
    """A flag that came later has the value of then, not its new default."""
    import torch

    from timm_smalldata.engine import checkpoint
    assert run([photos, '--epochs', '2', '--stop-epoch', '1'])[0] == 0
    place = tmp_path / 'runs/e/last.pth.tar'
    state = checkpoint.load(place)
    del state['args'].hflip, state['args'].sam_rho
    torch.save(state, place)
    for dest, then in (('hflip', 0.25), ('sam_rho', None)):
        flag = BY_DEST[dest]
        later = Flag(**{**vars(flag), 'before': then})
        monkeypatch.setitem(BY_DEST, dest, later)
        monkeypatch.setattr('timm_smalldata.run.resume.FLAGS', list(BY_DEST.values()))
    code, _, err = run([photos, '--epochs', '2', '--resume', 'auto'])
    assert code == 0, err
    assert checkpoint.load(place)['args'].hflip == 0.25


NAMES = """
aa aa-prob allow-missing-classes alpha amp amp-dtype aug aug-repeats aug-splits augment-on batch-size bce-loss
bce-pos-weight bce-sum
bce-target-thresh bn-eps bn-momentum cache cache-dir cache-size channels-last class-map class-stats class-token-std
clip-grad
clip-mode color-jitter color-jitter-prob config contrastive-dim contrastive-temperature cooldown-epochs crop-pct cutmix
cutmix-minmax cutout data-dir
dataset dataset-download dataset-trust-remote-code decay-epochs decay-milestones decay-rate device device-modules
dino-centering dino-freeze-last-layer dino-local-crops dino-local-scale dino-local-size dino-momentum
dino-norm-last-layer dino-out-dim dino-sharpening dino-student-temp dino-teacher-temp dino-teacher-temp-epochs
dino-warmup-teacher-temp dino-weight-decay-end dist-bn
distill-loss-weight
distillation-alpha drop drop-block drop-path drop-path-constant
drs-epoch drw-beta drw-epoch dry-run epochs eval-metric experiment fast-norm fold folder-labels force
force-color-jitter freeze-backbone fused-attn fusion gaussian-blur-prob gp grad-accum-steps grad-checkpointing
grayscale-prob grey-range group-column group-regex head
head-init-bias head-init-scale head-scale hflip hub-license hub-public idmm-cutmix idmm-multicrop idmm-smoothing
image-root imbalance-factor imbalance-indices imbalance-profile imbalance-seed img-size initial-checkpoint input-key
interpolation jsd-loss
kd-distill-type kd-loss-type kd-model-name kd-student-feature-dim kd-teacher-feature-dim kd-temperature
kd-token-distill-type
keep knn-k knn-temperature lade-weight layer-decay layer-decay-min-scale layer-decay-no-opt-scale
log-interval log-project log-tensorboard log-to log-wandb
 loss loss-class-weight loss-kwargs loss-pos-weight loss-tau loss-weight-power lr
lr-base lr-base-scale lr-base-size lr-cycle-decay lr-cycle-limit lr-cycle-mul lr-decay-fn lr-k-decay lr-noise
lr-noise-pct lr-noise-std lr-stable-timescale mae-decoder-depth mae-decoder-dim mae-decoder-heads mae-mask-ratio
mae-norm-pix mae-pos-embed mean min-lr mixup mixup-mode mixup-off-drw mixup-off-epoch mixup-prob mixup-switch-prob model
model-ema model-ema-decay model-ema-force-cpu model-ema-warmup model-kwargs momentum muon-dtype no-aug no-ddp-bb
no-resume-opt num-classes on-bad-image on-collapse opt opt-betas opt-eps opt-kwargs output paco-alpha paco-dim
paco-key-view
paco-momentum paco-norm paco-queue paco-temperature patience-epochs pin-mem poly-epsilon posthoc-tau pretrained
pretrained-path
probe probe-interval push-to-hub ratio recipe recipe-scale recount remode reprob reset-head resplit resume
sam-adaptive sam-global sam-rho sam-rho-schedule sampler sampler-power save-epochs save-images scale sched
sched-on-updates seed select shot-split skip-stage smoothing split-file split-key split-seed std stem-init stop-epoch
sync-bn target-key task
task-loss-weight
tau-norm teacher teacher-path teacher-renorm teacher-view temperature test-fraction test-split
time-budget torchcompile torchcompile-mode train-batch-sizes train-batches-per-epoch train-crop-mode train-img-sizes
train-interpolation train-size-probs train-size-random-mix train-size-schedule train-size-schedule-spread train-split
val-fraction val-interval val-split validation-batch-size vflip wandb-project wandb-resume-id wandb-tags warmup-epochs
warmup-lr warmup-prefix weight-decay workers
"""


def test_the_set_of_flags_is_frozen():
    """A new flag, and one that goes, is a deliberate act: this list is edited by hand."""
    assert sorted(flag.name for flag in FLAGS) == NAMES.split()
