import os
import signal
import subprocess
import sys

import pytest

from timm_smalldata.errors import UserError
from timm_smalldata.utils import lock as lock_module
from timm_smalldata.utils.lock import FolderLock

HOLD = '''
import sys, time
from pathlib import Path
from timm_smalldata.utils.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.take()
print('held', flush=True)
time.sleep(60)
'''


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.wait()


def test_another_process_is_named_and_its_end_frees_the_folder(tmp_path, holder):
    lock = FolderLock(tmp_path)
    with pytest.raises(UserError, match=rf'is in use by process {holder.pid} on .*, since \d{{4}}-.*--experiment'):
        lock.take()
    with pytest.raises(UserError, match=f'process {holder.pid}'):  # asking does not take it away
        lock.take()
    holder.kill()
    holder.wait()
    lock.take()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_process_does_not_take_a_folder_twice(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    with pytest.raises(UserError, match='this process'):
        second.take()
    second.release()  # it holds nothing
    with pytest.raises(UserError):
        second.take()
    first.release()
    second.take()
    second.release()


def test_without_record_locks(tmp_path, monkeypatch):
    """As on Windows, where filelock locks: the same promises."""
    monkeypatch.setattr(lock_module, 'fcntl', None)
    code = HOLD.replace('lock = ', 'import timm_smalldata.utils.lock as module\nmodule.fcntl = None\nlock = ')
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    lock = FolderLock(tmp_path)
    with pytest.raises(UserError, match=rf'is in use by process {process.pid} on .*, since \d{{4}}-.*--experiment'):
        lock.take()
    process.kill()
    process.wait()
    lock.take()
    with pytest.raises(UserError, match='this process'):
        FolderLock(tmp_path).take()
    lock.release()
    lock.take()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_child_of_a_killed_process_does_not_hold_it(tmp_path):
    """Data workers outlive a killed run for some seconds."""
    code = HOLD.replace("print('held'", "import os\nchild = os.fork()\nif child: print(child")
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    lock = FolderLock(tmp_path)
    try:
        lock.take()
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
