"""The file of starts: what it says after a kill, and of a run that began anew."""
from timm_smalldata.run.starts import Starts, copy_starts, read_starts


def test_a_line_for_each_start(tmp_path):
    assert read_starts(tmp_path) == []
    first = Starts(tmp_path, 0)
    assert read_starts(tmp_path) == [dict(first_update=0, last_update=None)]
    for update in range(12):
        first.note(update)
    second = Starts(tmp_path, 8)  # the first never closed: it was killed
    second.note(8)
    second.close()
    assert read_starts(tmp_path) == [dict(first_update=0, last_update=11), dict(first_update=8, last_update=8)]
    with open(tmp_path / 'starts.txt', 'a') as stream:
        stream.write('     ')  # killed while it wrote its first line
    Starts(tmp_path, 10).close()
    assert read_starts(tmp_path)[-1] == dict(first_update=10, last_update=None)
    assert len(read_starts(tmp_path)) == 3


def test_other_ranks_write_nothing(tmp_path):
    starts = Starts(None, 0)
    starts.note(3)
    starts.close()
    assert not list(tmp_path.iterdir())


def test_a_run_that_moves_keeps_its_starts(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    old.mkdir(), new.mkdir()
    copy_starts(old, new)
    assert not list(new.iterdir())
    Starts(old, 0).note(4)
    copy_starts(old, new)
    Starts(new, 3).close()
    copy_starts(old, new)  # the same command again: what is there stays
    assert read_starts(new) == [dict(first_update=0, last_update=4), dict(first_update=3, last_update=None)]
