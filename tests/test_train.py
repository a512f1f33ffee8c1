import json
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toy_units import BUSY, CPU, bits_of, every_step, make_experiment, make_unit, same_bits, train_all
from toys import make_toy, train_toy

from pipeline.base.errors import PodiumError
from pipeline.base.interrupt import StopFlag
from pipeline.data.stream import Stream
from pipeline.records.machine import Machine
from pipeline.records.predictions import load_predictions
from pipeline.records.runs import Unit, Workspace
from pipeline.stages.crossval import predict_run
from pipeline.training import train
from pipeline.training.checkpoint import newest_checkpoint
from pipeline.training.ema import swapped
from pipeline.training.history import read_history
from pipeline.training.predict import predict_logits
from pipeline.training.state import final_weights
from pipeline.training.train import StepAt, epoch_batches, make_batch, step_inputs, train_step, train_unit
from pipeline.training.unit import dataset_of, load_unit, predict_unit


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def one_step(unit, parts, experiment, step=0, epoch=0, machine=CPU):
    order, batches = epoch_batches(unit, experiment, epoch)
    at = StepAt(epoch, step, len(batches), batches[step])
    inputs = next(step_inputs(Stream(unit.items, None, 0), unit, parts, order, [at.part], at.epoch))
    batch = make_batch(unit, parts, experiment, order, at, inputs)
    return batch.rows, *train_step(parts, experiment, machine, batch, at)


def test_inputs_of_batches_made_together_are_those_of_each_made_alone(monkeypatch):
    experiment = make_experiment({"augment": {"shift": {"max_px": 2}, "erasing": {"fill": "pixel"}, "noise": {}}})
    unit, parts = make_unit(experiment)
    order, batches = epoch_batches(unit, experiment, 1)
    n_made = []

    def counted(stored, *args):
        n_made.append(len(stored))
        return parts.inputs(stored, *args)

    def made(most, first=0):
        monkeypatch.setattr(train, "TOGETHER", most)
        with Stream(unit.items, None, 0) as stream:
            return list(step_inputs(stream, unit, replace(parts, inputs=counted), order, batches, 1, first))

    assert len(batches) == 3
    alone, together = made(1), made(20)
    assert n_made == [10, 10, 10, 20, 10]
    assert all(map(torch.equal, alone, together))
    assert len({float(inputs.sum()) for inputs in alone}) == 3
    # From a later step on, the same groups are made, so that nothing is computed otherwise than in an unbroken epoch.
    n_made.clear()
    rest = made(20, first=1)
    assert n_made == [20, 10]
    assert all(map(torch.equal, alone[1:], rest))
    assert made(20, first=3) == []


def test_what_a_batch_was_made_of_is_free_during_its_step(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "TOGETHER", 1)
    experiment = make_experiment({"mix": {"mixup_alpha": 0.4}})
    unit, parts = make_unit(experiment)
    held, free = [], []

    def watched(stored, *args):
        inputs = parts.inputs(stored, *args)
        held.append(weakref.ref(inputs))
        return inputs

    def stepped(*args):
        free.append(held[-1]() is None)
        return train_step(*args)

    monkeypatch.setattr(train, "train_step", stepped)
    train_all(unit, replace(parts, inputs=watched), experiment, tmp_path)
    assert len(held) == len(free) == 3 * experiment.train.epochs
    assert all(free)


def params_of(parts):
    return {name: param.detach().clone() for name, param in parts.model.named_parameters()}


def moved(experiment, **more):
    """What one step adds to each parameter."""
    unit, parts = make_unit(experiment)
    before = params_of(parts)
    one_step(unit, parts, experiment, **more)
    return before, {name: param - before[name] for name, param in params_of(parts).items()}


# -- the step against code made by hand --------------------------------------------------------------------------------


def test_two_steps_are_those_of_plain_torch_code_in_float32():
    loss = {"name": "cross_entropy", "label_smoothing": 0.1}
    optimizer = {"name": "momentum", "lr": 0.1, "weight_decay": 0.05, "l1": 1e-3}
    experiment = make_experiment({"loss": loss, "optimizer": optimizer, "train": {"clip_norm": 0.5}})
    unit, parts = make_unit(experiment)
    weight, bias = (param.detach().clone().requires_grad_() for param in parts.model.parameters())
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    order, _ = epoch_batches(unit, experiment, 0)

    for step in range(2):
        rows = unit.train.row[order.sample[step * 10 : (step + 1) * 10]]
        images = torch.stack([unit.items.fetch(np.array([row]))[0] for row in rows])
        inputs = ((images - parts.scaling.mean) / parts.scaling.std).reshape(10, -1)
        targets = F.one_hot(torch.from_numpy(rows % 3), 3) * 0.9 + 0.1 / 3
        log_probs = torch.log_softmax(inputs @ weight.T + bias, dim=1)
        value = -(targets * log_probs).sum(1).mean()
        gradients = torch.autograd.grad(value + 1e-3 * weight.abs().sum(), (weight, bias))
        norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        with torch.no_grad():
            for number, (param, decay) in enumerate([(weight, 0.05), (bias, 0.0)]):
                gradient = gradients[number] * min(1.0, 0.5 / norm) + decay * param
                velocity[number] = 0.9 * velocity[number] + gradient
                param -= 0.1 * velocity[number]
        seen, loss_value, is_good = one_step(unit, parts, experiment, step)
        assert is_good
        assert seen.tolist() == rows.tolist()
        assert float(loss_value) == pytest.approx(float(value.detach()), rel=1e-6)

    torch.testing.assert_close(parts.model[1].weight, weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(parts.model[1].bias, bias, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulation", [2, 3, 10])
def test_micro_batches_add_up_to_the_whole_batch(accumulation):
    block = {"model": {"name": "mlp", "hidden": 8}, "optimizer": {"l1": 0.01}}
    _, whole = moved(make_experiment(block))
    _, parts = moved(make_experiment(block, {"train": {"accumulation": accumulation}}))
    for name, change in whole.items():
        torch.testing.assert_close(parts[name], change, rtol=1e-4, atol=1e-7)


def test_clip_norm_scales_the_global_norm_and_keeps_the_direction():
    _, free = moved(make_experiment())
    _, clipped = moved(make_experiment({"train": {"clip_norm": 0.01}}))
    norm = torch.sqrt(sum(change.square().sum() for change in clipped.values())) / 0.1
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
    free_norm = torch.sqrt(sum(change.square().sum() for change in free.values()))
    for name, change in clipped.items():
        torch.testing.assert_close(change / 0.001, free[name] / free_norm, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_l1_penalty_pulls_weights_but_not_biases_once_a_step(accumulation):
    train = {"train": {"accumulation": accumulation}}
    _, free = moved(make_experiment(train))
    before, pulled = moved(make_experiment(train, {"optimizer": {"l1": 0.01}}))
    difference = pulled["1.weight"] - free["1.weight"]
    torch.testing.assert_close(difference, -0.1 * 0.01 * before["1.weight"].sign(), rtol=1e-3, atol=1e-6)
    assert torch.equal(pulled["1.bias"], free["1.bias"])


def test_the_rate_of_a_step_is_that_of_the_schedule():
    experiment = make_experiment({"schedule": {"name": "step", "milestones": (1,), "gamma": 0.5}})
    unit, parts = make_unit(experiment)
    one_step(unit, parts, experiment, epoch=0, step=2)
    assert parts.optimizer.param_groups[0]["lr"] == 0.1
    one_step(unit, parts, experiment, epoch=1, step=0)
    assert [group["lr"] for group in parts.optimizer.param_groups] == [0.05, 0.05]


def test_bf16_multiplies_roughly_and_keeps_float32_weights():
    block = {"model": {"name": "mlp", "hidden": 8}}
    _, exact = moved(make_experiment(block))
    _, rough = moved(make_experiment(block), machine=Machine(precision="bf16"))
    assert all(change.dtype == torch.float32 for change in rough.values())
    assert any(not torch.equal(rough[name], exact[name]) for name in exact)
    for name, change in exact.items():
        torch.testing.assert_close(rough[name], change, rtol=0.1, atol=2e-3)


def test_the_step_depends_on_its_key_and_not_on_the_global_generator():
    experiment = make_experiment(BUSY)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        unit, parts = make_unit(experiment)
        torch.rand(seed)
        state = torch.get_rng_state()
        one_step(unit, parts, experiment, step=1)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(bits_of(parts))
    assert same_bits(*results)
    unit, parts = make_unit(experiment)
    one_step(replace(unit, seed=5), parts, experiment, step=1)
    assert not same_bits(results[0], bits_of(parts))


# -- losses and weights that are not finite ----------------------------------------------------------------------------


def first_bad(experiment, n_steps=3):
    """Rows that make the given number of steps of the first epoch bad: one in each batch, from the second batch on."""
    unit, _ = make_unit(experiment)
    order = unit.train.row[epoch_batches(unit, experiment, 0)[0].sample]
    return [int(order[10 * step + 4]) for step in range(3 - n_steps, 3)]


def test_a_loss_that_is_not_finite_changes_nothing():
    experiment = make_experiment(BUSY)
    unit, parts = make_unit(experiment, bad=first_bad(experiment, 1))
    for step in range(2):
        assert one_step(unit, parts, experiment, step)[2]
    before = bits_of(parts)
    assert any("running_mean" in name for name in before)
    assert any(name.startswith("optimizer/") for name in before)
    _, loss, is_good = one_step(unit, parts, experiment, 2)
    assert not is_good
    assert math.isnan(float(loss))
    assert same_bits(before, bits_of(parts))
    assert all(param.grad is None for param in parts.model.parameters())


def test_a_bad_batch_is_written_down_and_training_goes_on(tmp_path):
    experiment = make_experiment(BUSY)
    bad = first_bad(experiment, 1)
    unit, parts = make_unit(experiment, bad=bad)
    train_all(unit, parts, experiment, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "nonfinite.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert (lines[0]["step"], lines[0]["loss"], len(lines[0]["ids"])) == (2, "nan", 10)
    assert all(f"r{bad[0]:02d}" in line["ids"] for line in lines)
    history = read_history(tmp_path / "history.csv")
    assert all(math.isfinite(value) for column in history.values() for value in column)
    assert all(bool(tensor.isfinite().all()) for tensor in bits_of(parts).values())


def test_three_bad_steps_in_a_row_stop_and_the_last_good_checkpoint_stays(tmp_path):
    experiment = make_experiment(BUSY, {"train": {"weights": "last"}})
    unit, parts = make_unit(experiment)
    steps = train_unit(unit, parts, experiment, CPU, tmp_path, StopFlag())
    for event in steps:
        if event.epoch == 0 and event.step == event.n_steps:
            break
    good = bits_of(parts)
    steps.close()
    broken, resumed = make_unit(experiment)
    broken = replace(broken, items=make_unit(experiment, bad=range(10, 40))[0].items)
    with pytest.raises(
        PodiumError, match=r"fold 0: the loss was not finite in 3 steps in a row \(epoch 1\).*nonfinite"
    ):
        train_all(broken, resumed, experiment, tmp_path)
    assert len((tmp_path / "nonfinite.jsonl").read_text().splitlines()) == 3
    saved, values = newest_checkpoint(tmp_path)
    assert (values["epoch"], values["step"]) == (1, 0)
    assert same_bits({name: tensor for name, tensor in saved.items() if name in good}, good)


def test_bad_steps_are_counted_across_an_interruption(tmp_path):
    experiment = make_experiment()
    unit, parts = make_unit(experiment, bad=range(10, 40))
    steps = train_unit(unit, parts, experiment, every_step(), tmp_path, StopFlag())
    for _ in range(3):
        next(steps)
    steps.close()
    resumed = train_unit(unit, make_unit(experiment)[1], experiment, CPU, tmp_path, StopFlag())
    next(resumed)
    with pytest.raises(PodiumError, match=r"not finite in 3 steps in a row"):
        next(resumed)


def test_two_bad_steps_between_good_ones_do_not_stop(tmp_path):
    experiment = make_experiment({"train": {"epochs": 1}})
    unit, parts = make_unit(experiment, bad=first_bad(experiment, 2))
    train_all(unit, parts, experiment, tmp_path)
    assert len((tmp_path / "nonfinite.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_weights_that_a_finite_loss_broke_are_neither_saved_nor_scored(tmp_path, minutes):
    experiment = make_experiment({"train": {"epochs": 2}})
    unit, parts = make_unit(experiment)
    calls, scored = [], []
    unit = replace(unit, score=scored.append)

    def loss(logits, targets, weights):  # from the second epoch on: finite, but the gradient is 0 * inf
        calls.append(1)
        value = parts.loss(logits, targets)
        return value if len(calls) <= 5 else value + (logits * 0).sum().sqrt()

    with pytest.raises(PodiumError, match=r"not finite.*last good checkpoint is kept"):
        train_all(unit, replace(parts, loss=loss), experiment, tmp_path, Machine(checkpoint_minutes=minutes))
    saved, values = newest_checkpoint(tmp_path)
    assert (values["epoch"], values["step"]) == ((1, 2) if minutes == 0 else (1, 0))
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values())
    assert (len(values["history"]), len(scored)) == (1, 1)


# -- which weights predict ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("higher", "scores", "losses", "best"),
    [
        (True, [0.2, 0.7, 0.7, 0.1], [3.0, 2.0, 1.0, 0.0], 1),
        (False, [0.9, 0.4, 0.3, 0.3], [0.0, 1.0, 2.0, 3.0], 2),
        (True, [None, None, None, None], [0.8, 0.3, 0.3, 0.5], 1),
        (True, [None, None, None, None], [math.inf, 0.3, 0.2, math.nan], 2),
    ],
)
def test_best_takes_the_first_epoch_with_the_best_score_or_else_loss(tmp_path, higher, scores, losses, best):
    experiment = make_experiment({"train": {"epochs": 4, "weights": "best"}, "optimizer": {"lr": 3.0}})
    unit, parts = make_unit(experiment)
    given_scores, given_losses = iter(scores), iter(losses)
    unit = replace(unit, score=lambda _: next(given_scores), higher_is_better=higher)
    parts = replace(parts, heldout_loss=lambda logits, targets: torch.tensor(next(given_losses)))
    snapshots = []
    for event in train_unit(unit, parts, experiment, CPU, tmp_path, StopFlag()):
        if event.step == event.n_steps:
            snapshots.append({name: tensor.clone() for name, tensor in parts.model.state_dict().items()})
    assert same_bits(final_weights(tmp_path, parts, "best"), snapshots[best])
    assert not same_bits(snapshots[best], snapshots[3])


def test_averaged_weights_are_those_that_are_scored(tmp_path):
    experiment = make_experiment(BUSY, {"train": {"epochs": 2}})
    unit, parts = make_unit(experiment)
    train_all(unit, parts, experiment, tmp_path)
    averages = final_weights(tmp_path, parts, "ema")
    assert same_bits(averages, parts.ema.state())
    targets = unit.targets[torch.from_numpy(unit.heldout.row)]

    def heldout_loss():
        logits = predict_logits(parts.model, unit.items, unit.heldout.item, parts.scaling, CPU, 512)
        return float(-(targets * logits.log_softmax(1)).sum(1).mean())

    last = heldout_loss()
    with swapped(parts.model, averages):
        averaged = heldout_loss()
    recorded = read_history(tmp_path / "history.csv")["heldout_loss"][-1]
    assert recorded == pytest.approx(averaged, rel=1e-6)
    assert abs(averaged - last) > 1e-4


def test_prediction_leaves_the_model_in_its_mode_and_averages_nothing_over_batches():
    experiment = make_experiment(BUSY)
    unit, parts = make_unit(experiment)
    parts.model.train()
    one = predict_logits(parts.model, unit.items, np.arange(10), parts.scaling, CPU, 10)
    two = predict_logits(parts.model, unit.items, np.arange(10), parts.scaling, CPU, 3)
    assert parts.model.training
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_events_count_the_steps_and_end_with_the_scores(tmp_path):
    experiment = make_experiment()
    events = train_all(*make_unit(experiment), experiment, tmp_path)
    assert [(event.epoch, event.step) for event in events] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert [event.finished for event in events] == [False] * 6 + [True]
    assert set(events[3].metrics) == {"held-out", "accuracy"}
    history = read_history(tmp_path / "history.csv")
    assert list(history) == ["epoch", "lr", "train_loss", "heldout_loss", "accuracy", "seconds"]
    assert history["epoch"] == [1, 2]


def test_balanced_sampling_shows_every_class_equally_often():
    experiment = make_experiment({"train": {"sampling": "balanced"}})
    unit, _ = make_unit(experiment)
    scarce = replace(unit, labels=np.where(np.arange(40) < 15, 0, 1 + np.arange(40) % 2))
    order, _ = epoch_batches(scarce, experiment, 0)
    assert np.bincount(scarce.labels[scarce.train.row[order.sample]]).tolist() == [10, 10, 10]


# -- a run: what is saved is what predicted, and the order of rows means nothing ---------------------------------------

RUN = {
    "model": {"name": "cnn3", "width": 4, "dropout": 0.2},
    "augment": {"shift": {"max_px": 1}, "affine": {"max_rotate_deg": 10.0}},
    "train": {"epochs": 2, "batch_size": 16},
}


@pytest.mark.parametrize("weights", ["last", "best", "ema"])
def test_saved_weights_predict_again_what_the_run_wrote_bitwise(tmp_path, weights):
    net = RUN | {"folds": {"n_folds": 2}, "train": {"epochs": 2, "batch_size": 16, "weights": weights}}
    net |= {"ema": {"decay": 0.9}} if weights == "ema" else {}
    run = train_toy(tmp_path, make_toy(tmp_path, n_train=40, net=net))
    workspace, unit = Workspace(tmp_path), Unit(0, 0)
    data = dataset_of(workspace, run, lambda _: None)
    rows, items = data.train.rows, data.train_items("cpu")
    written = load_predictions(run.unit_folder(unit) / "heldout.parquet")
    model, scaling, digest = load_unit(run, unit, rows, items)
    assert written.meta["weights_hash"] == digest
    held = np.flatnonzero(np.isin(rows.ids, written.ids))
    some = replace(rows, ids=rows.ids[held], items=tuple(rows.items[row] for row in held), targets=None)
    again = predict_unit(run, unit, some, items, model, scaling, digest, StopFlag())
    assert np.array_equal(again.aligned_to(written.ids).values, written.values)

    before = load_predictions(run.folder / "test.parquet")
    after = load_predictions(predict_run(workspace, run, lambda _: None, out=tmp_path / "again.parquet"))
    assert np.array_equal(after.aligned_to(before.ids).values, before.values)


@pytest.mark.parametrize(
    ("kind", "input", "net"),
    [
        ("multiclass", "image", RUN | {"loss": {"name": "cross_entropy", "class_weights": "balanced"}}),
        ("multiclass", "image", RUN | {"train": {"epochs": 2, "batch_size": 16, "sampling": "balanced"}}),
        ("regression", "signal", {"augment": {"time_shift": {"max_samples": 3}}, "train": {"weights": "best"}}),
    ],
)
def test_shuffled_tables_give_the_same_predictions_by_id_bitwise(tmp_path, kind, input, net):
    results = []
    for shuffle in (None, 7):
        root = tmp_path / str(shuffle)
        store = "files" if input == "image" else "npz"
        config = make_toy(root, kind, input, store=store, n_train=60, shuffle=shuffle, net=net)
        run = train_toy(root, config, ["folds.n_folds=2", "train.epochs=2"])
        results.append({name: load_predictions(run.folder / f"{name}.parquet") for name in ("oof", "test")})
    for name in ("oof", "test"):
        plain, shuffled = results[0][name], results[1][name].aligned_to(results[0][name].ids)
        assert np.array_equal(plain.values, shuffled.values)
        assert plain.fold is None or np.array_equal(plain.fold, shuffled.fold)


def test_other_data_under_the_same_name_is_not_taken_from_memory(tmp_path):
    import shutil

    config = make_toy(tmp_path, n_train=40)
    first = train_toy(tmp_path, config, ["train.epochs=1"])
    ids = set(load_predictions(first.folder / "oof.parquet").ids)
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "folds")
    make_toy(tmp_path, n_train=44)
    second = train_toy(tmp_path, config, ["train.epochs=1"])
    assert len(set(load_predictions(second.folder / "oof.parquet").ids) - ids) == 4


def test_checkpoints_at_every_step_change_no_bit(tmp_path):
    experiment = make_experiment(BUSY)
    results = []
    for name, machine in (("seldom", CPU), ("often", every_step())):
        unit, parts = make_unit(experiment)
        train_all(unit, parts, experiment, tmp_path / name, machine)
        results.append(bits_of(parts))
    assert same_bits(*results)
