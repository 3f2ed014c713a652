"""Where views are made: resolved once, said, stored, and kept."""
import pytest

from timm_smalldata.build.views import place_of_augmentation
from timm_smalldata.data.views import Augment, ViewSpec
from timm_smalldata.engine import checkpoint
from timm_smalldata.errors import UserError

BATCHED, OTHER = ViewSpec(32), ViewSpec(32, augment=Augment('rand-m9-mstd0.5-inc1'))


@pytest.mark.parametrize('wanted, views, device, place', [
    ('auto', [BATCHED], 'cuda', 'device'), ('auto', [BATCHED, OTHER], 'cuda', 'image'),
    ('auto', [BATCHED], 'cpu', 'image'), ('image', [BATCHED], 'cuda', 'image'),
    ('device', [BATCHED, BATCHED], 'cpu', 'device'), ('image', [OTHER], 'cpu', 'image')])
def test_auto_is_a_matter_of_device_and_operations(wanted, views, device, place):
    assert place_of_augmentation(wanted, views, device) == place


def test_what_has_no_batched_form_cannot_be_wanted():
    with pytest.raises(UserError, match='--aa rand-m9-mstd0.5-inc1 has no batched form: use --augment-on image'):
        place_of_augmentation('device', [BATCHED, OTHER], 'cpu')


def test_it_is_one_line_on_the_screen(run, photos, tmp_path):
    code, _, err = run([photos, '--augment-on', 'device', '--aug', 'rand-augment', '--aa-prob', '1'])
    assert code == 2 and 'Traceback' not in err
    assert err.splitlines()[-1].startswith('error: --augment-on device: --aa rand-m9-mstd0.5-inc1 has no batched form')
    code, _, err = run([photos, '--aug', 'rand-augment', '--dry-run'])
    assert code == 0 and 'views: made image by image (--augment-on image; --aa rand-m9-mstd0.5-inc1 has no' in err
    code, _, err = run([photos, '--dry-run'])
    assert code == 0 and 'views: made image by image (--augment-on image)' in err
    code, _, err = run([photos, '--dry-run', '--augment-on', 'device'])
    assert code == 0 and 'views: made in batches on cpu (--augment-on device)' in err


@pytest.mark.parametrize('wanted, place', [('device', 'device'), ('auto', 'image'), ('image', 'image')])
def test_what_auto_meant_is_stored_and_kept(run, photos, tmp_path, monkeypatch, wanted, place):
    """Even where it would mean something else by now."""
    assert run([photos, '--epochs', '2', '--stop-epoch', '1', '--augment-on', wanted])[0] == 0
    saved = tmp_path / 'runs/e/last.pth.tar'
    assert checkpoint.load(saved)['args'].augment_on == place
    assert f'augment_on: {place}' in (tmp_path / 'runs/e/args.yaml').read_text()
    monkeypatch.setattr('timm_smalldata.build.views.no_batched_form', lambda spec: '--aa 3a')
    other = {'image': 'auto', 'device': 'auto'}[place]
    if place == 'image':
        code, _, err = run([photos, '--epochs', '2', '--resume', 'auto', '--augment-on', other])
        assert code == 0 and checkpoint.load(saved)['args'].augment_on == 'image', err
    else:  # the operation is gone: it is said, and nothing else is taken in silence
        code, _, err = run([photos, '--epochs', '2', '--resume', 'auto', '--augment-on', other])
        assert code == 2 and '--augment-on device: --aa 3a has no batched form' in err.splitlines()[-1]


def test_a_run_from_before_the_flag_goes_on_image_by_image(run, photos, tmp_path):
    import torch
    assert run([photos, '--epochs', '2', '--stop-epoch', '1', '--augment-on', 'image'])[0] == 0
    place = tmp_path / 'runs/e/last.pth.tar'
    state = checkpoint.load(place)
    del state['args'].augment_on
    torch.save(state, place)
    code, _, err = run([photos, '--epochs', '2', '--resume', 'auto'])
    assert code == 0 and checkpoint.load(place)['args'].augment_on == 'image', err
