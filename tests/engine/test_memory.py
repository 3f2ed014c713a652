"""Out of memory: the batch that would fit is tried out and said, in training, evaluation and before the first epoch."""
import pytest
import torch

from timm_smalldata.engine.memory import in_memory
from timm_smalldata.errors import UserError


def needs(limit, tried):
    """Return work on some images that fits up to a limit."""
    def work(size):
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
        return size
    return work


def test_what_fits_is_done():
    assert in_memory(lambda: 3, 8, lambda size: 1 / 0) == 3
    with pytest.raises(ValueError):
        in_memory(lambda: int('x'), 8, lambda size: 1 / 0)


@pytest.mark.parametrize('batch, limit, fits, tried', [
    (64, 63, 32, [64, 32]), (64, 9, 8, [64, 32, 16, 8]), (48, 24, 24, [48, 24]), (6, 1, 1, [6, 3, 1])])
def test_the_batch_that_would_fit(batch, limit, fits, tried):
    seen = []
    work = needs(limit, seen)
    with pytest.raises(UserError) as error:
        in_memory(lambda: work(batch), batch, work)
    assert seen == tried
    assert f'full with a batch of {batch}; {fits} would fit: --batch-size {fits} --grad-accum-steps' in str(error.value)
    with pytest.raises(UserError, match=f'--validation-batch-size {fits}[.]'):
        in_memory(lambda: work(batch), batch, work, '--validation-batch-size')


def test_nothing_fits():
    work = needs(0, [])
    with pytest.raises(UserError, match='even with one image of a batch of 4: take a smaller --model'):
        in_memory(lambda: work(4), 4, work)


def limited(monkeypatch, most, after=0):
    """Let the model of a run hold so many images at once, from some forward pass on."""
    from timm.models.vision_transformer import VisionTransformer
    forward, calls = VisionTransformer.forward, []

    def full(self, x, *args, **kwargs):
        calls.append(len(x))
        if len(x) > most and len(calls) > after:
            raise torch.OutOfMemoryError('CUDA out of memory.')
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(VisionTransformer, 'forward', full)


def test_a_task_with_many_views_names_it(run, photos, monkeypatch):
    limited(monkeypatch, 12)  # six crops of two images
    code, _, err = run([photos, '--task', 'idmm', '--batch-size', '4', '--val-fraction', '0'])
    assert code == 2 and 'is full with a batch of 4; 2 would fit: --batch-size 2' in err.splitlines()[-1], err


@pytest.mark.parametrize('after', [0, 12], ids=['while it is measured', 'in the training'])
def test_a_run_names_it(run, photos, monkeypatch, after):
    limited(monkeypatch, 2, after)
    code, _, err = run([photos, '--batch-size', '4', '--val-fraction', '0', '--epochs', '9'])
    assert code == 2 and err.splitlines()[-1] == (
        'error: The memory of cpu is full with a batch of 4; 2 would fit: --batch-size 2 --grad-accum-steps 2 (as many '
        'images an update).')


def test_an_evaluation_names_it(run, photos, monkeypatch):
    limited(monkeypatch, 4)
    code, _, err = run([photos, '--batch-size', '4', '--val-fraction', '0.3', '--validation-batch-size', '6',
                        '--val-interval', '1'])
    assert code == 2 and err.splitlines()[-1].endswith(
        'is full with a batch of 6; 3 would fit: --validation-batch-size 3.'), err
