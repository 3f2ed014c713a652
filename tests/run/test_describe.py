"""A training begins with what the doctor would find in what was read anyway, and with the command for the rest."""
import shutil

from PIL import Image

from timm_smalldata import __main__ as cli


def line(err):
    return next(line for line in err.splitlines() if line.startswith('doctor: '))


def test_nothing_found(run, photo_folder):
    photo_folder('photos', dict(ant=14, bee=14))
    code, _, err = run(['photos', '--dry-run', '--folder-labels', 'leaf'])
    assert code == 0 and line(err) == (
        'doctor: no image twice across splits or labels, none broken; the rest: timm-smalldata doctor photos '
        '--folder-labels leaf')


def test_what_the_scan_knows(run, photo_folder, tmp_path, capsys):
    root = photo_folder('my photos', {'train/ant': 14, 'train/bee': 9, 'test/ant': 4, 'test/bee': 4})
    shutil.copy(root / 'train/bee/0.png', root / 'train/ant/90.png')  # under two labels
    shutil.copy(root / 'train/ant/2.png', root / 'test/ant/91.png')  # across splits (test/X/0 to 3 are more such)
    (root / 'train/bee/92.png').write_bytes(b'\x89PNG\r\n\x1a\nbroken')
    for number, path in enumerate(sorted(root.glob('test/*/[0-3].*'))):
        Image.new('RGB', (40, 40), (9 * number, 80, 80)).save(path)
    code, _, err = run(['my photos', '--dry-run', '--val-fraction', '0', '--on-bad-image', 'skip'])
    assert code == 0 and line(err) == (
        'doctor: images in two splits: 1, under two labels: 1, broken: 1, classes with fewer than 10 training images: '
        "1; the rest: timm-smalldata doctor 'my photos'")
    assert cli.main(['doctor', 'my photos']) == 1  # the same four, and what else there is
    assert 'two labels: 1' in capsys.readouterr().out
