"""SAM and ASAM: the published traces, exact restoring, and what a torch optimizer must be able to do."""
import copy
import io
import json
import pickle
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from timm_smalldata.optim import SAM

VECTORS = json.loads((Path(__file__).parents[1] / 'vectors' / 'sam.json').read_text())


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def closure_of(model, scale=1.0, seed=1):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(8) % 3

    def closure():
        closure.calls += 1
        closure.seen.append([p.detach().clone() for p in model.parameters()])
        closure.grads.append([p.grad for p in model.parameters()])
        loss = nn.functional.cross_entropy(model(x), y) * scale
        loss.backward()
        return loss

    closure.calls, closure.seen, closure.grads = 0, [], []
    return closure


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second))


# --- the numbers ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['SAM', 'ASAM'])
def test_published_traces(name):
    case = VECTORS[name]
    A, b = torch.tensor(case['A']), torch.tensor(case['b'])
    w = nn.Parameter(torch.tensor(case['w0']))
    optimizer = SAM(
        [w], torch.optim.SGD, rho=case['rho'], adaptive=name == 'ASAM', lr=case['lr'], momentum=case['momentum'],
        weight_decay=case['wd'])
    for step in case['steps']:
        seen, grads = [], []

        def closure(seen=seen, grads=grads):
            seen.append(w.detach().clone())
            loss = 0.5 * w @ A @ w - b @ w
            loss.backward()
            grads.append(w.grad.clone())
            return loss

        start = w.detach().clone()
        loss = optimizer.step(closure)
        torch.testing.assert_close(loss.detach(), 0.5 * start @ A @ start - b @ start)
        assert torch.equal(seen[0], start) and len(seen) == 2
        for ours, theirs in zip((*grads, seen[1], w.detach()), ('g1', 'g2', 'w_plus_e', 'w_after')):
            torch.testing.assert_close(ours, torch.tensor(step[theirs]), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize('adaptive', [False, True])
def test_the_norm_is_that_of_all_groups_together(adaptive):
    model, rho = make_model(), 0.7
    start = values(model)
    closure = closure_of(model)
    closure()
    g = [p.grad.double() for p in model.parameters()]
    model.zero_grad()
    groups = [dict(params=model[0].parameters(), lr=0.0), dict(params=model[2].parameters(), weight_decay=0.1)]
    closure = closure_of(model)
    SAM(groups, torch.optim.SGD, rho=rho, adaptive=adaptive, lr=0.1).step(closure)
    wide = [w.double() for w in start]
    scaled = [w.abs() * x for w, x in zip(wide, g)] if adaptive else g
    norm = sum(s.square().sum() for s in scaled).sqrt() + 1e-12
    expected = [w + rho * ((w ** 2 if adaptive else 1) * x) / norm for w, x in zip(wide, g)]
    for ours, theirs in zip(closure.seen[1], expected):
        torch.testing.assert_close(ours, theirs.float())
    assert same(values(model[0]), start[:2])  # a rate of zero
    assert not same(values(model[2]), start[2:])


def test_weight_decay_acts_on_the_restored_weights():
    model, other = make_model(), make_model()
    SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1, weight_decay=0.2).step(closure_of(model))
    SAM(other.parameters(), torch.optim.SGD, rho=0.5, lr=0.1).step(closure_of(other))
    for a, b, w in zip(model.parameters(), other.parameters(), make_model().parameters()):
        torch.testing.assert_close(a, b - 0.1 * 0.2 * w)


def test_rho_zero_is_the_base_optimizer():
    model, plain = make_model(), make_model()
    SAM(model.parameters(), torch.optim.AdamW, rho=0, lr=0.1).step(closure_of(model))
    closure_of(plain)()
    torch.optim.AdamW(plain.parameters(), lr=0.1).step()
    assert same(values(model), values(plain))


@pytest.mark.parametrize('rho', [-0.1, float('nan'), float('inf')])
def test_rho_must_be_a_radius(rho):
    with pytest.raises(ValueError, match='rho'):
        SAM(make_model().parameters(), torch.optim.SGD, rho=rho, lr=0.1)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats(dtype):
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=dtype))
    seen = []

    def closure():
        seen.append(w.detach().clone())
        loss = 1e-3 * (w * torch.tensor([6.0, 8.0], dtype=dtype)).sum()
        loss.backward()
        return loss

    SAM([w], torch.optim.SGD, rho=0.5, lr=1.0).step(closure)
    torch.testing.assert_close(seen[1], torch.tensor([3.3, 4.4], dtype=dtype))


# --- restoring ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('adaptive', [False, True])
def test_weights_come_back_to_the_bit(adaptive):
    """Also those whose gradient is gone in the second pass; the base is stepped with a rate of zero."""
    a, b = nn.Parameter(torch.randn(50)), nn.Parameter(1e6 * torch.randn(50))
    start, calls = [a.detach().clone(), b.detach().clone()], []

    def closure():
        calls.append((a.detach().clone(), b.detach().clone()))
        loss = (a ** 2).sum() + (b.sum() if len(calls) == 1 else 0.0)
        loss.backward()
        return loss

    optimizer = SAM([a, b], torch.optim.SGD, rho=0.3, adaptive=adaptive, lr=0.0)
    optimizer.step(closure)
    assert not torch.equal(calls[1][0], start[0]) and not torch.equal(calls[1][1], start[1])  # both were perturbed
    assert torch.equal(a, start[0]) and torch.equal(b, start[1]) and b.grad is None


def test_a_group_that_names_a_parameter_twice_and_storage_that_is_shared():
    a = nn.Parameter(torch.randn(5))
    view = nn.Parameter(a.data)  # another parameter on the same memory
    start = a.detach().clone()

    def closure():
        loss = (a ** 2).sum() + (view ** 3).sum()
        loss.backward()
        return loss

    with pytest.warns(UserWarning, match='duplicate'):
        optimizer = SAM([a, a, view], torch.optim.SGD, rho=0.3, lr=0.0)
    optimizer.step(closure)
    assert torch.equal(a, start) and view.data_ptr() == a.data_ptr()


def test_tied_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x).tanh())[:, :3]

    model = Tied()
    start = values(model)
    closure = closure_of(model)
    SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.0).step(closure)
    assert len(start) == 1 and not same(closure.seen[1], start) and same(values(model), start)
    torch.testing.assert_close((closure.seen[1][0] - start[0]).norm(), torch.tensor(0.3))
    assert model.two.weight is model.one.weight


def test_parameters_without_a_gradient_stay():
    model = make_model()
    model[0].requires_grad_(False)
    spare = nn.Parameter(torch.ones(3))
    start = values(model)
    closure = closure_of(model)
    SAM([*model.parameters(), spare], torch.optim.SGD, rho=0.5, lr=0.1, weight_decay=0.5).step(closure)
    assert same(closure.seen[1][:2], start[:2]) and same(values(model)[:2], start[:2])
    assert torch.equal(spare, torch.ones(3)) and not same(values(model)[2:], start[2:])


def test_nothing_has_a_gradient():
    w, calls = nn.Parameter(torch.ones(3)), []
    assert SAM([w], torch.optim.SGD, lr=0.1).step(lambda: calls.append(0) or 3.0) == 3.0
    assert len(calls) == 2 and torch.equal(w, torch.ones(3))


@pytest.mark.parametrize('fatal', [1, 2])
def test_a_closure_that_raises_leaves_the_weights_as_they_were(fatal):
    model = make_model()
    start, closure = values(model), closure_of(model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1, momentum=0.9)

    def failing():
        loss = closure()
        if closure.calls == fatal:
            raise KeyboardInterrupt
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(failing)
    assert same(values(model), start) and closure.calls == fatal and not optimizer.state


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('adaptive', [False, True])
def test_a_gradient_that_is_not_finite_moves_nothing(bad, adaptive):
    """The second pass is at w, finite; what the base then does is what it would do without SAM."""
    w = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    seen = []

    def closure():
        seen.append(w.detach().clone())
        loss = (w * torch.tensor([1.0, bad, 1.0])).sum()
        loss.backward()
        return loss

    SAM([w], torch.optim.SGD, rho=0.5, adaptive=adaptive, lr=0.1).step(closure)
    assert torch.equal(seen[0], seen[1])
    torch.testing.assert_close(w.detach()[[0, 2]], torch.tensor([0.9, 2.9]))
    assert not w[1].isfinite()


def test_gradients_that_vanish_or_are_huge():
    for size in (0.0, 1e-30, 1e30):
        w = nn.Parameter(torch.tensor([1.0, 2.0]))

        def closure(w=w, size=size):
            loss = (w * size).sum()
            loss.backward()
            return loss

        SAM([w], torch.optim.SGD, rho=0.5, lr=0.0).step(closure)
        assert torch.equal(w, torch.tensor([1.0, 2.0]))


# --- the step -------------------------------------------------------------------------------------------------------

def test_two_calls_each_with_fresh_gradients_and_the_first_loss():
    model = make_model()
    closure, plain = closure_of(model), closure_of(make_model())
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)  # of whatever came before
    expected = plain()
    assert torch.equal(optimizer.step(closure), expected) and closure.calls == 2
    assert all(g is None for grads in closure.grads for g in grads)


def test_before_the_base_steps_weights_are_restored_and_hold_the_second_gradient():
    model = make_model()
    start, closure, seen = values(model), closure_of(model), []

    def clip():
        seen.extend(values(model))
        for p in model.parameters():
            p.grad.zero_()

    assert SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1).step(closure, before_step=clip) is not None
    assert closure.calls == 2 and same(seen, start) and same(values(model), start)  # zeroed gradients step nowhere


@torch.no_grad()
def test_the_closure_needs_no_care_about_grad_mode():
    model = make_model()
    start = values(model)
    SAM(model.parameters(), torch.optim.SGD, lr=0.1).step(closure_of(model))
    assert not same(values(model), start)


def test_a_step_without_a_closure_says_what_is_missing():
    with pytest.raises(ValueError, match='closure'):
        SAM(make_model().parameters(), torch.optim.SGD, lr=0.1).step()


# --- being an optimizer ---------------------------------------------------------------------------------------------

def steps(optimizer, model, n=3):
    for number in range(n):
        optimizer.step(closure_of(model, seed=number))
    return values(model)


@pytest.mark.parametrize('name', ['adamw', 'sgd', 'lamb', 'muon', 'lion', 'adafactor', 'lookahead_sgd'])
def test_timm_optimizers_as_base(name):
    """Built with their groups first, then wrapped; or built by the wrapper, from any callable."""
    results = []
    for how in ('around', 'callable'):
        model = timm.create_model('test_vit', num_classes=3, img_size=32).eval()
        torch.manual_seed(3)
        for p in model.parameters():
            nn.init.normal_(p, std=0.05)
        if how == 'around':
            optimizer = SAM.wrap(create_optimizer_v2(model, opt=name, lr=0.01, weight_decay=0.1), 0.1, True)
            assert len(optimizer.param_groups) >= 2 and optimizer.adaptive and optimizer.rho == 0.1
        else:
            optimizer = SAM(model, create_optimizer_v2, 0.1, True, opt=name, lr=0.01, weight_decay=0.1)
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        calls = []

        def closure(model=model, x=x, calls=calls):
            calls.append(values(model))
            loss = model(x).square().mean()
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(3)]
        assert len(calls) == 6 and losses[2] < losses[0]
        assert not same(calls[0], calls[1]) and not same(calls[0], calls[2])
        results.append(values(model))
    assert same(*results)


def test_groups_and_state_are_those_of_the_base():
    model = make_model()
    optimizer = SAM(model[0].parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    optimizer.add_param_group(dict(params=list(model[2].parameters()), lr=0.5))
    base = optimizer.base
    assert optimizer.param_groups is base.param_groups and optimizer.state is base.state
    assert [g['lr'] for g in base.param_groups] == [0.1, 0.5] and base.param_groups[1]['momentum'] == 0.9
    steps(optimizer, model)
    assert len(optimizer.state) == 4
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_the_state_survives_a_file():
    model, other = make_model(), make_model()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, adaptive=True, lr=0.1, momentum=0.9)
    steps(optimizer, model)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    assert state['rho'] == 0.3 and state['adaptive'] is True
    other.load_state_dict(weights)
    restored = SAM(other.parameters(), torch.optim.SGD, rho=0.1, lr=9.0)
    restored.load_state_dict(state)
    assert restored.rho == 0.3 and restored.adaptive and restored.param_groups is restored.base.param_groups
    assert same(steps(optimizer, model), steps(restored, other))


def test_states_go_to_the_base_and_come_from_it():
    model = make_model()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, momentum=0.9)
    steps(optimizer, model)
    plain = torch.optim.SGD(model.parameters(), lr=5.0)
    plain.load_state_dict(optimizer.state_dict())
    assert plain.param_groups[0]['lr'] == 0.1 and len(plain.state) == 4
    back = SAM(model.parameters(), torch.optim.SGD, rho=0.2, lr=7.0)
    back.load_state_dict(plain.state_dict())
    assert back.rho == 0.2 and back.param_groups[0]['lr'] == 0.1 and len(back.state) == 4


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_their_own_way(copied):
    model = make_model()
    optimizer = SAM(model.parameters(), torch.optim.AdamW, rho=0.3, adaptive=True, lr=0.1)
    steps(optimizer, model)
    other, twin = copied((model, optimizer))
    assert twin.param_groups is twin.base.param_groups and twin.state is twin.base.state
    assert (twin.rho, twin.adaptive) == (0.3, True)
    before = values(model)
    assert not same(steps(twin, other), before) and same(values(model), before)
    assert same(steps(optimizer, model), values(other))


@pytest.mark.parametrize('of_base', [False, True])
def test_learning_rate_schedulers_of_torch(of_base, recwarn):
    model = make_model()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer.base if of_base else optimizer, 1, gamma=0.5)
    other = SAM(make_model().parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    cyclic = torch.optim.lr_scheduler.OneCycleLR(other, 1, 9)  # reads the defaults
    assert cyclic.optimizer.param_groups[0]['momentum'] == 0.95
    rates = []
    for _ in range(3):
        optimizer.step(closure_of(model))
        rates.append(optimizer.base.param_groups[0]['lr'])
        scheduler.step()
    assert rates == [0.4, 0.2, 0.1]
    assert not [w for w in recwarn if 'lr_scheduler' in str(w.message)]


def test_learning_rate_schedulers_of_timm():
    from timm.scheduler import create_scheduler_v2
    optimizer = SAM(make_model().parameters(), torch.optim.SGD, lr=0.4)
    scheduler, _ = create_scheduler_v2(optimizer, 'cosine', num_epochs=10, min_lr=0.0, warmup_epochs=0)
    scheduler.step(5)
    assert optimizer.base.param_groups[0]['lr'] == pytest.approx(0.2)


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6), reason='optimizers take names from torch 2.6 on')
def test_named_parameters_and_hooks():
    model = make_model()
    optimizer = SAM(model.named_parameters(), partial(torch.optim.SGD, momentum=0.5), lr=0.1)
    heard = []
    optimizer.register_step_post_hook(lambda *args: heard.append(args[0]))
    steps(optimizer, model)
    assert heard == [optimizer] * 3 and optimizer.param_groups[0]['momentum'] == 0.5
