"""What reaches an unmodified timm script through `--device-modules timm_smalldata`: in a process of its own."""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What timm's train.py does with the flag, then with the rest: import by name before anything else, create the model by
# name, timm's data set, loader, task and optimizer.
SCRIPT = """
import importlib, random, sys
import timm, timm.task, timm.optim, torch
assert not timm.is_model('resnet20_cifar')
for module in ['timm_smalldata']:
    importlib.import_module(module)
assert 'timm_smalldata.loss' not in sys.modules  # registration only
random.seed(0); torch.manual_seed(0)
model = timm.create_model('resnet20_cifar', num_classes=3)
dataset = timm.data.create_dataset('', root='photos/train', is_training=True)
loader = timm.data.create_loader(dataset, (3, 32, 32), 8, is_training=True, auto_augment='3a', use_prefetcher=False,
                                 num_workers=0, device=torch.device('cpu'))
task = timm.task.ClassificationTask(model, torch.nn.CrossEntropyLoss(), device=torch.device('cpu'))
optimizer = timm.optim.create_optimizer_v2(model, 'sgd', lr=0.05, momentum=0.9)
losses = []
for epoch in range(15):
    for images, labels in loader:
        loss = task(images, labels)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print(sum(losses[:6]) > sum(losses[-6:]))
"""


def test_registers_and_trains(photo_folder, tmp_path):
    photo_folder('photos/train')
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0 and done.stdout.strip().endswith('True'), done.stdout + done.stderr
