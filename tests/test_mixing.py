import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.augment.mixing import Mix, draw_mix, kept_shares, mix_batch, patch_boxes
from pipeline.records.augmentation import MixSpec
from pipeline.records.experiment import BinaryCrossEntropy, CrossEntropy
from pipeline.training.losses import build_loss, smooth_multihot, smooth_targets

SPECS = {
    "mixup": {"mixup_alpha": 0.4},
    "cutmix": {"cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "switch_prob": 0.4, "prob": 0.7},
}
SHAPES = {"images": (3, 9, 12), "signals": (2, 40)}


def make_spec(name="both", **more):
    return MixSpec.model_validate(SPECS[name] | more)


def make_batch(n, shape=(3, 9, 12), n_classes=4, seed=0, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.normal(size=(n, *shape))).to(dtype)
    return inputs, torch.nn.functional.one_hot(torch.from_numpy(rng.integers(0, n_classes, n)), n_classes).float()


def make_mix(partner, share, is_patch=False, centre=(0.5, 0.5)):
    n = len(partner)
    return Mix(
        partner=np.array(partner),
        share=np.broadcast_to(np.array(share, dtype=np.float64), n).copy(),
        is_patch=np.broadcast_to(np.array(is_patch), n).copy(),
        centre=np.broadcast_to(np.array(centre, dtype=np.float64), (n, 2)).copy(),
    )


def slow_mix(inputs, targets, mix):
    """Mix one sample after the other, value by value, in float64; return inputs, targets and what each keeps."""
    values, goals = inputs.double().numpy(), targets.double().numpy()
    mixed, aims, shares = values.copy(), goals.copy(), []
    shape = values.shape[2:]
    for sample, partner in enumerate(mix.partner):
        share = mix.share[sample]
        if mix.is_patch[sample]:
            side = np.sqrt(1 - share) if len(shape) == 2 else 1 - share
            n_taken = 0
            for place in np.ndindex(shape):
                is_in = True
                for axis, length in enumerate(shape):
                    centre = mix.centre[sample][axis + 2 - len(shape)] * length
                    first = int(np.floor(centre - side * length / 2 + 0.5))
                    last = int(np.floor(centre + side * length / 2 + 0.5)) - 1
                    is_in = is_in and first <= place[axis] <= last
                if is_in:
                    n_taken += 1
                    mixed[(sample, slice(None), *place)] = values[(partner, slice(None), *place)]
            share = 1 - n_taken / np.prod(shape)
        else:
            mixed[sample] = share * values[sample] + (1 - share) * values[partner]
        aims[sample] = share * goals[sample] + (1 - share) * goals[partner]
        shares.append(share)
    return mixed, aims, np.array(shares)


# -- the mixing itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 64])
@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_batch_equals_a_loop_over_samples_for_even_and_odd_sizes(shape, name, per, n):
    inputs, targets = make_batch(n, shape)
    for step in range(4):
        mix = draw_mix(make_spec(name, per=per), n, 1, 2, step)
        mixed, aims = mix_batch(inputs, targets, mix)
        slow, slow_aims, _ = slow_mix(inputs, targets, mix)
        assert (mixed.dtype, aims.dtype, aims.shape) == (torch.float32, torch.float32, (n, 4))
        np.testing.assert_allclose(mixed.numpy(), slow, atol=1e-5)
        np.testing.assert_allclose(aims.numpy(), slow_aims, atol=1e-6)


def test_mixup_by_hand():
    inputs = torch.tensor([[[0.0, 8.0]], [[4.0, 4.0]], [[-8.0, 0.0]]])
    targets = torch.eye(3)
    mixed, aims = mix_batch(inputs, targets, make_mix([1, 2, 0], 0.75))
    assert mixed[:, 0].tolist() == [[1.0, 7.0], [1.0, 3.0], [-6.0, 2.0]]
    assert aims.tolist() == [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]]


def test_cutmix_by_hand_in_the_middle_and_cut_at_a_corner():
    inputs = torch.stack([torch.zeros(1, 4, 8), torch.ones(1, 4, 8)])
    targets = torch.eye(2)
    # Sides are sqrt(1 - 0.75) = one half of the image's: 2 x 4, a quarter of the area.
    mixed, aims = mix_batch(inputs, targets, make_mix([1, 0], 0.75, True))
    expected = torch.zeros(4, 8)
    expected[1:3, 2:6] = 1
    assert torch.equal(mixed[:, 0], torch.stack([expected, 1 - expected]))
    assert aims.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    # About the upper right corner three quarters of the patch are outside: 1 x 2 of 32 pixels stay inside.
    mixed, aims = mix_batch(inputs, targets, make_mix([1, 0], 0.75, True, (0.0, 1.0)))
    expected = torch.zeros(4, 8)
    expected[:1, 6:] = 1
    assert torch.equal(mixed[:, 0], torch.stack([expected, 1 - expected]))
    assert aims.tolist() == [[1 - 2 / 32, 2 / 32], [2 / 32, 1 - 2 / 32]]


def test_signals_exchange_a_window_of_time_in_all_channels():
    inputs = torch.stack([torch.zeros(3, 10), torch.ones(3, 10)])
    mixed, aims = mix_batch(inputs, torch.eye(2), make_mix([1, 0], 0.6, True, (0.9, 0.3)))
    expected = torch.zeros(3, 10)
    expected[:, 1:5] = 1  # 0.4 of the length about 0.3; the first number of the centre is for images only
    assert torch.equal(mixed, torch.stack([expected, 1 - expected]))
    assert aims[0].tolist() == pytest.approx([0.6, 0.4])
    _, aims = mix_batch(inputs, torch.eye(2), make_mix([1, 0], 0.6, True, (0.9, 0.0)))
    assert aims[0].tolist() == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_labels_follow_the_real_area_of_the_patch(shape):
    n = 50
    inputs = torch.arange(float(n)).view(n, *(1 for _ in shape)).expand(n, *shape).contiguous()  # each its own number
    targets = torch.eye(n)
    for step in range(5):
        mix = draw_mix(make_spec("cutmix", per="sample"), n, 0, 0, step)
        mixed, aims = mix_batch(inputs, targets, mix)
        for sample, partner in enumerate(mix.partner):
            own = (mixed[sample] == sample).double().mean().item()
            assert ((mixed[sample] == sample) | (mixed[sample] == partner)).all()
            assert aims[sample, sample].item() == pytest.approx(own, abs=1e-6)
        np.testing.assert_array_equal(torch.unique(aims.sum(1).round(decimals=5)).numpy(), [1.0])


def test_boxes_lie_inside_and_shares_of_all_and_nothing_are_exact():
    mix = dataclasses.replace(
        make_mix(range(4), [0.0, 1.0, 0.5, 0.5], True),
        centre=np.array([[0.5, 0.5], [0.5, 0.5], [0, 0], [1 - 1e-9] * 2]),
    )
    boxes = patch_boxes(mix, (6, 10))
    assert boxes.shape == (4, 2, 2)
    assert boxes.min() >= 0
    assert (boxes <= np.array([6, 10])[:, None]).all()
    assert kept_shares(boxes, (6, 10))[:2].tolist() == [0, 1]
    inputs, targets = make_batch(2)
    mixed, aims = mix_batch(inputs, targets, make_mix([1, 0], 0.0, True))
    assert torch.equal(mixed, inputs.flip(0))
    assert torch.equal(aims, targets.flip(0))


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("name", SPECS)
def test_soft_and_one_hot_targets_still_sum_to_one_and_multi_hot_and_binary_stay_in_range(name, per):
    rng = np.random.default_rng(5)
    soft = torch.from_numpy(rng.dirichlet(np.ones(4), 9)).float()
    multihot = torch.from_numpy(rng.integers(0, 2, (9, 4))).float()
    binary = torch.from_numpy(rng.integers(0, 2, (9, 1))).float()
    inputs, onehot = make_batch(9)
    for step in range(20):
        mix = draw_mix(make_spec(name, per=per), 9, 0, 0, step)
        mixed = {kind: mix_batch(inputs, goal, mix)[1] for kind, goal in (("soft", soft), ("one", onehot))}
        for goal in mixed.values():
            torch.testing.assert_close(goal.sum(1), torch.ones(9))
        for goal in (multihot, binary):
            aims = mix_batch(inputs, goal, mix)[1]
            _, expected, _ = slow_mix(inputs, goal, mix)
            np.testing.assert_allclose(aims.numpy(), expected, atol=1e-6)
            assert aims.shape == goal.shape
            assert 0 <= aims.min() <= aims.max() <= 1


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_of_one_and_a_sample_that_is_its_own_partner_keep_their_bits(name):
    inputs, targets = make_batch(1)
    for step in range(20):
        mixed, aims = mix_batch(inputs, targets, draw_mix(make_spec(name), 1, 0, 0, step))
        assert torch.equal(mixed, inputs)
        assert torch.equal(aims, targets)
    inputs, targets = make_batch(3)
    for is_patch in (False, True):
        mixed, aims = mix_batch(inputs, targets, make_mix([1, 0, 2], 0.3, is_patch))
        assert torch.equal(mixed[2], inputs[2])
        assert torch.equal(aims[2], targets[2])
        assert not torch.equal(mixed[0], inputs[0])


def test_a_value_that_is_not_finite_does_not_reach_samples_that_take_none_of_it():
    inputs, targets = make_batch(4)
    inputs[1] = float("inf")
    mix = make_mix([1, 0, 3, 2], [1.0, 0.5, 0.5, 0.5], [False, False, True, False])
    mixed, _ = mix_batch(inputs, targets, mix)
    assert torch.equal(mixed[0], inputs[0])
    assert mixed[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("name", SPECS)
def test_inputs_and_targets_are_left_untouched(name):
    inputs, targets = make_batch(8)
    copies = inputs.clone(), targets.clone()
    for step in range(8):
        mix_batch(inputs, targets, draw_mix(make_spec(name), 8, 0, 0, step))
    assert torch.equal(inputs, copies[0])
    assert torch.equal(targets, copies[1])


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("name", SPECS)
def test_channels_last_stays_and_half_precision_inputs_do_not_round_the_labels(name, per):
    inputs, targets = make_batch(8)
    mix = draw_mix(make_spec(name, per=per, prob=1.0), 8, 0, 0, 0)
    mixed, aims = mix_batch(inputs.contiguous(memory_format=torch.channels_last), targets, mix)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed, mix_batch(inputs, targets, mix)[0])
    halved, halved_aims = mix_batch(inputs.bfloat16(), targets, mix)
    assert halved.dtype == torch.bfloat16
    assert torch.equal(halved_aims, aims)


# -- the draws ---------------------------------------------------------------------------------------------------------


def same(first, second):
    return all(
        np.array_equal(getattr(first, part.name), getattr(second, part.name)) for part in dataclasses.fields(Mix)
    )


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_draws_are_a_function_of_seed_epoch_and_step_alone(per):
    spec = make_spec("both", per=per)
    first = draw_mix(spec, 9, 1, 2, 3)
    np.random.seed(0)
    torch.manual_seed(0)
    draw_mix(spec, 5, 7, 7, 7)
    assert same(first, draw_mix(spec, 9, 1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not same(first, draw_mix(spec, 9, *other))
    assert all(isinstance(getattr(first, part.name), np.ndarray) for part in dataclasses.fields(Mix))  # on no device


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_the_draws_of_a_sample_do_not_depend_on_the_batch_size(per):
    spec = make_spec("both", per=per)
    for step in range(20):
        large = draw_mix(spec, 256, 1, 2, step)
        for n in (1, 2, 7, 255):
            small = draw_mix(spec, n, 1, 2, step)
            for name in ("share", "is_patch", "centre"):
                np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:n])


def test_switching_cutmix_off_leaves_the_other_draws():
    both, mixup = (make_spec(name, mixup_alpha=0.4, prob=0.7, per="sample") for name in ("both", "mixup"))
    for step in range(20):
        with_both, alone = draw_mix(both, 50, 0, 0, step), draw_mix(mixup, 50, 0, 0, step)
        np.testing.assert_array_equal(alone.partner, with_both.partner)
        np.testing.assert_array_equal(alone.share == 1, with_both.share == 1)  # who is mixed at all
        np.testing.assert_array_equal(alone.share[~with_both.is_patch], with_both.share[~with_both.is_patch])


def test_the_draws_of_neighbouring_samples_steps_epochs_and_of_each_other_are_unrelated():
    spec = make_spec("mixup", mixup_alpha=1.0, per="sample")
    at = [draw_mix(spec, 5000, 0, *where) for where in ((0, 0), (0, 1), (1, 0))]
    pairs = [(at[0].share[1:], at[0].share[:-1]), (at[0].share, at[1].share), (at[0].share, at[2].share)]
    pairs += [(at[0].share, at[0].centre[:, 0]), (at[0].centre[:, 0], at[0].centre[:, 1])]
    pairs += [(at[0].share, at[0].partner / 5000), (at[0].partner / 5000, at[1].partner / 5000)]
    assert all(stats.pearsonr(*pair).pvalue > 1e-3 for pair in pairs)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_partners_are_a_permutation_for_even_and_odd_batches(n):
    partners = np.array([draw_mix(make_spec("both"), n, 0, 0, step).partner for step in range(300)])
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.tile(np.arange(n), (300, 1)))
    if n > 1:
        assert stats.chisquare(np.bincount(partners[:, 0], minlength=n)).pvalue > 1e-3


def test_per_batch_all_samples_share_one_draw_and_per_sample_each_has_its_own():
    together = draw_mix(make_spec("both", prob=1.0), 50, 0, 0, 0)
    assert len(np.unique(together.share)) == len(np.unique(together.is_patch)) == 1
    assert len(np.unique(together.centre, axis=0)) == 1
    apart = draw_mix(make_spec("both", prob=1.0, per="sample"), 50, 0, 0, 0)
    assert len(np.unique(apart.share)) == 50
    assert len(np.unique(apart.is_patch)) == 2
    assert len(np.unique(apart.centre, axis=0)) == 50


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_prob_is_how_often_anything_is_mixed_and_switch_prob_how_often_a_patch(per):
    spec = make_spec("both", per=per, prob=0.3, switch_prob=0.8)
    mixes = [draw_mix(spec, 3, 0, 0, step) for step in range(3000)]
    is_mixed = np.array([mix.share[0] < 1 for mix in mixes])
    is_patch = np.array([mix.is_patch[0] for mix in mixes])
    assert is_mixed.mean() == pytest.approx(0.3, abs=0.03)
    assert is_patch.mean() == pytest.approx(0.8, abs=0.03)
    assert is_patch[is_mixed].mean() == pytest.approx(0.8, abs=0.05)  # neither draw tells the other


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_prob_zero_mixes_nothing_and_prob_one_everything(prob):
    inputs, targets = make_batch(5)
    for step in range(30):
        mix = draw_mix(make_spec("both", prob=prob), 5, 0, 0, step)
        assert (mix.share < 1).all() == bool(prob)
        if not prob:
            mixed, aims = mix_batch(inputs, targets, mix)
            assert torch.equal(mixed, inputs)
            assert torch.equal(aims, targets)


@pytest.mark.parametrize(("name", "is_patch"), [("mixup", False), ("cutmix", True)])
def test_with_one_kind_of_mixing_on_it_is_always_that_one(name, is_patch):
    assert all((draw_mix(make_spec(name), 4, 0, 0, step).is_patch == is_patch).all() for step in range(50))


@pytest.mark.parametrize(("name", "alpha"), [("mixup", 0.2), ("mixup", 1.0), ("cutmix", 0.5)])
def test_shares_follow_the_beta_distribution_and_keep_one_half_on_average(name, alpha):
    spec = make_spec(name, per="sample", **{f"{name}_alpha": alpha})
    shares = np.concatenate([draw_mix(spec, 50, 0, 0, step).share for step in range(60)])
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    by_step = np.array(
        [draw_mix(make_spec(name, **{f"{name}_alpha": alpha}), 2, 0, 0, step).share[0] for step in range(3000)]
    )
    assert stats.kstest(by_step, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_centres_are_uniform_so_a_clipped_patch_keeps_more_than_was_drawn():
    spec = make_spec("cutmix", per="sample")
    mixes = [draw_mix(spec, 50, 0, 0, step) for step in range(60)]
    centres = np.concatenate([mix.centre for mix in mixes])
    assert all(stats.kstest(centres[:, axis], "uniform").pvalue > 1e-3 for axis in range(2))
    # A side s about a uniform centre loses s^2 / 4 of the length on average; with s^2 = 1 - lambda uniform, an axis
    # keeps s - s^2 / 4, and the area E[(s - s^2 / 4)^2] = 1/2 - 1/5 + 1/48.
    kept = np.concatenate([kept_shares(patch_boxes(mix, (500, 500)), (500, 500)) for mix in mixes])
    assert kept.mean() == pytest.approx(1 - (1 / 2 - 1 / 5 + 1 / 48), abs=0.015)
    # Signals: E[w - w^2 / 4] with w = 1 - lambda uniform is 1/2 - 1/12.
    kept = np.concatenate([kept_shares(patch_boxes(mix, (500,)), (500,)) for mix in mixes])
    assert kept.mean() == pytest.approx(1 - (1 / 2 - 1 / 12), abs=0.015)


# -- with smoothing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_smoothing_is_applied_once_to_mixed_classes(name):
    inputs, targets = make_batch(9)
    logits = torch.from_numpy(np.random.default_rng(3).normal(size=(9, 4)))
    loss = build_loss(CrossEntropy(name="cross_entropy", label_smoothing=0.1), "multiclass", "softmax", "abcd", None)
    for step in range(5):
        mix = draw_mix(make_spec(name, prob=1.0), 9, 0, 0, step)
        _, aims = mix_batch(inputs, targets, mix)
        _, plain, shares = slow_mix(inputs, targets, mix)
        once = 0.9 * plain + 0.1 / 4
        expected = -(once * torch.log_softmax(logits, 1).numpy()).sum(1).mean()
        assert loss(logits, aims).item() == pytest.approx(expected, rel=1e-6)
        # The known lambda: own class lambda * 0.9 + 0.025, that of the partner (1 - lambda) * 0.9 + 0.025, else 0.025.
        own, other = targets.argmax(1), targets[mix.partner].argmax(1)
        for sample, seen in enumerate(smooth_targets(aims, 0.1)):
            hand = np.full(4, 0.025)
            hand[own[sample]] += 0.9 * shares[sample]
            hand[other[sample]] += 0.9 * (1 - shares[sample])
            np.testing.assert_allclose(seen.numpy(), hand, atol=1e-6)
            assert seen.sum().item() == pytest.approx(1)


def test_smoothing_is_applied_once_to_mixed_labels():
    targets = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    logits = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 3)))
    _, aims = mix_batch(torch.zeros(2, 1, 4), targets, make_mix([1, 0], 0.7))
    np.testing.assert_allclose(aims.numpy(), [[1, 0.3, 0.7], [1, 0.7, 0.3]], atol=1e-7)
    loss = build_loss(BinaryCrossEntropy(name="bce", label_smoothing=0.2), "multilabel", "softmax", "abc", None)
    once = np.array([[0.9, 0.34, 0.66], [0.9, 0.66, 0.34]])
    np.testing.assert_allclose(smooth_multihot(aims, 0.2).numpy(), once, atol=1e-6)
    probs = torch.sigmoid(logits).numpy()
    expected = -(once * np.log(probs) + (1 - once) * np.log(1 - probs)).mean()
    assert loss(logits, aims).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.gpu
def test_cuda_mixes_as_the_cpu_does():
    inputs, targets = make_batch(9)
    for step in range(6):
        mix = draw_mix(make_spec("both", per="sample"), 9, 0, 0, step)
        mixed, aims = mix_batch(inputs.cuda(), targets.cuda(), mix)
        here, here_aims = mix_batch(inputs, targets, mix)
        torch.testing.assert_close(mixed.cpu(), here)
        torch.testing.assert_close(aims.cpu(), here_aims)
