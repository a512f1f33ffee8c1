"""How a model is trained: input, augmentation, model, loss, optimiser, schedule, seeds. Changes daily.

Every block is a frozen record; where variants of a thing have options of their own (losses, schedules) each variant is
a record of its own, so that an option which a variant never reads is an unknown key and therefore an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from pipeline.records.augmentation import Augment, MixSpec
from pipeline.records.record import BLOCK, BY_FORM, WORD, Block, Distinct, Names, Record
from pipeline.records.signal_steps import SignalSteps
from pipeline.records.unlabelled import ConsistencySpec, PseudoSpec
from pipeline.records.views import Views

Pixels = Annotated[int, Field(ge=1)]
Size = tuple[Pixels, Pixels]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def off_word(value: Any) -> Any:
    """Return `off` for what YAML makes of that word."""
    return "off" if value is False else value


class FoldSpec(Record):
    """How rows are dealt to folds; the table that comes out is saved and then only read."""

    scheme: Literal["auto", "plain", "stratified", "group", "stratified_group", "multilabel", "quantile", "column"] = (
        "auto"
    )
    """`auto`: by the kind of target, with groups where the task names a column of groups, subjects or sessions."""
    within: Literal["subject", "session"] | None = None
    """Deal the trials of each subject (its sessions, where the task names them, kept whole) or session over all folds.
    Such a score is that of known subjects; the run then also holds out whole ones, and shows both scores."""
    n_folds: int = Field(default=5, ge=2)
    """How many folds; with the scheme `column`, what the column must hold."""
    seed: int = 0
    """Seed of the split."""
    holdout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows set apart as fold -2, never in training and in no OOF."""
    n_bins: int = Field(default=10, ge=2)
    """Quantile scheme: how many bins of the target are balanced."""
    duplicates: Annotated[Literal["off", "exact", "near"], BeforeValidator(off_word)] = "off"
    """Images: rows that show the same picture stay in one fold; `exact`: alike in every pixel, `near`: nearly alike."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the table's file; by default `<scheme><n_folds>-seed<seed>`, with `-exact` or `-near` behind it."""


class ChannelStats(Record):
    """A mean and a standard deviation per channel, in the units of the stored values."""

    mean: tuple[float, ...] = Field(min_length=1)
    """One value, or one per channel."""
    std: tuple[Positive, ...] = Field(min_length=1)
    """One value, or one per channel."""


class Gradual(Record):
    """Training images that grow epoch by epoch, evenly, from a share of the stored size to the whole of it."""

    start_frac: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of height and width in the first epoch."""
    full_epoch: int = Field(ge=1)
    """First epoch, from 0, with images of the full size."""
    step_px: int = Field(default=4, ge=1)
    """Sides are rounded to multiples of this, so that few sizes occur."""


class Input(SignalSteps):
    """What the model gets to see of an item."""

    size: Annotated[Block[Size], BeforeValidator(_square)] = None
    """Images: stored height and width in pixels; without it, all files must have one size already."""
    channels: Literal[1, 3, 4] | None = None
    """Images: 1 grey, 3 RGB, 4 RGBA; without it, as the first file has them."""
    resize: Literal["squash", "letterbox", "crop"] = "squash"
    """Images: change the aspect, pad to keep it, or cut the middle."""
    length: int | None = Field(default=None, ge=1)
    """Signals: stored samples in time; longer ones are cut, shorter ones padded with zeros. Without it, all must have
    one length already."""
    align: Literal["start", "middle", "end"] = "start"
    """Signals: which part of an item keeps its place when it is cut or padded to `length`."""
    nan: Literal["error", "channel_mean", "zero"] = "error"
    """What becomes of values that are missing (NaN): refused, the mean of their channel in the same item, or 0."""
    normalize: Annotated[
        Annotated[Literal["measured", "robust", "pretrained", "none"], WORD] | Annotated[ChannelStats, BLOCK], BY_FORM
    ] = "measured"
    """Mean and deviation per channel: of the fold's own training part, of the pretrained model, or as given; `robust`:
    median and interquartile range / 1.349 of the training part, which single large values hardly move."""
    clip: Block[Positive] = None
    """Signals: normalised values are cut to -clip..clip."""

    gradual: Block[Gradual] = None
    """Images: train on smaller ones first; prediction always sees the full size."""

    @model_validator(mode="after")
    def _reads_resize(self) -> Input:
        if self.resize != "squash" and self.size is None:
            raise ValueError(f"resize: {self.resize} is never read without size:")
        if self.align != "start" and self.length is None:
            raise ValueError(f"align: {self.align} is never read without length:")
        return self


class SamSpec(Record):
    """Sharpness-aware minimisation: the gradient is taken where the loss rises most within a distance of rho."""

    rho: Positive = 0.05
    """Distance, 0.01-0.5; ASAM wants about ten times as much."""
    adaptive: bool = False
    """ASAM: distances in the scale of each weight."""
    every: int = Field(default=1, ge=1)
    """Steps from one such gradient to the next; plain steps between."""
    start_epoch: int = Field(default=0, ge=0)
    """First epoch with it, from 0: late in training it gives nearly the whole gain."""
    ascent_frac: float = Field(default=1.0, gt=0, le=1)
    """Share of the batch that says where the loss rises most: 0.5 makes a step 1.5 instead of 2 times a plain one."""


class ModelSpec(Record):
    """A model by name; the further keys are options of that model, checked against what it takes."""

    model_config = ConfigDict(extra="allow")

    name: str
    """One of the project's own nets, or any model name of timm."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `name`."""
        return dict(self.__pydantic_extra__ or {})

    def started_for(self, fold: int | str) -> ModelSpec:
        """Return the model for a unit: `{fold}` in the path of its start weights is filled in."""
        if not isinstance(self.options.get("weights"), str):
            return self
        return ModelSpec(
            name=self.name, **{**self.options, "weights": self.options["weights"].replace("{fold}", str(fold))}
        )

    def without_start(self) -> ModelSpec:
        """Return the model without start weights, to be filled with weights that a unit saved."""
        return ModelSpec(
            name=self.name, **{k: v for k, v in self.options.items() if k not in ("weights", "pretrained")}
        )


ClassWeights = Annotated[
    Annotated[Literal["balanced"], WORD] | Annotated[dict[str, Positive], BLOCK, Field(min_length=1)], BY_FORM
]


class CrossEntropy(Record):
    """Softmax cross-entropy with soft targets."""

    name: Literal["cross_entropy"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Mass spread evenly over all K classes: on = 1-eps+eps/K."""
    class_weights: Block[ClassWeights] = None
    """Weight per class name, or `balanced`: n / (K * n_class), from the training part of the fold."""


class BinaryCrossEntropy(Record):
    """Sigmoid cross-entropy, one term per label."""

    name: Literal["bce"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Targets move from 0 and 1 to eps/2 and 1-eps/2."""
    positive_weights: Block[ClassWeights] = None
    """Weight of the positive term per label, or `balanced`: negatives / positives of the fold's training part."""


class ValueLoss(Record):
    """What losses of values share: targets are standardised by the training part of the fold."""

    log_target: bool = False
    """Learn log(1 + y) of values from 0 on, where few are far larger than the rest; predictions are brought back."""


class SquaredError(ValueLoss):
    """Mean squared error."""

    name: Literal["mse"]


class AbsoluteError(ValueLoss):
    """Mean absolute error."""

    name: Literal["l1"]


class Huber(ValueLoss):
    """Huber's loss."""

    name: Literal["huber"]
    delta: Positive = 1.0
    """Where the parabola becomes a line, in standard deviations of the target."""


LossSpec = Annotated[
    CrossEntropy | BinaryCrossEntropy | SquaredError | AbsoluteError | Huber, Field(discriminator="name")
]


class OptimizerSpec(Record):
    """An optimiser of timm's factory that needs only first gradients."""

    name: str = "adamw"
    """Such as sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, adamw, lion."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: NotNegative = 0.0
    """Left out for norms and biases."""
    l1: NotNegative = 0.0
    """Coefficient of the L1 penalty on the weights (not norms and biases)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fine-tuning: each layer's rate is this share of the rate of the layer after it; the head has the full rate."""
    bias_factor: Positive = 1.0
    """Rate of norms and biases, as a multiple of the others'; up to 64 in trainings of a few epochs."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the optimiser, such as `momentum` or `betas`."""


class Constant(Record):
    """The same rate throughout."""

    name: Literal["constant"]
    warmup_epochs: NotNegative = 0.0
    """Linear rise from zero."""


class Cosine(Record):
    """Half a cosine from the peak to `final_frac` of it (Loshchilov and Hutter 2016, arXiv 1608.03983)."""

    name: Literal["cosine"]
    warmup_epochs: NotNegative = 0.0
    """Linear rise from zero."""
    final_frac: Fraction = 0.0
    """Rate at the end, as a share of the peak."""


class OneCycle(Record):
    """A linear rise to the peak and a linear fall to `final_frac` (Smith 2018, arXiv 1803.09820)."""

    name: Literal["one_cycle"]
    rise_frac: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the training that rises."""
    start_frac: Fraction = 0.04
    """Rate at the start, as a share of the peak."""
    final_frac: Fraction = 0.0
    """Rate at the end, as a share of the peak."""


class Step(Record):
    """The rate is multiplied by `gamma` at each milestone."""

    name: Literal["step"]
    milestones: Annotated[tuple[Positive, ...], Distinct] = Field(min_length=1)
    """Epochs at which the rate falls."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor of each fall."""
    warmup_epochs: NotNegative = 0.0
    """Linear rise from zero."""


ScheduleSpec = Annotated[Constant | Cosine | OneCycle | Step, Field(discriminator="name")]


class EmaSpec(Record):
    """An exponential moving average of the weights; buffers of floating type are averaged alike, counters copied."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Share of the old average kept at a step."""
    warmup: bool = True
    """Start with the smaller decay (1 + step) / (10 + step), so that the first weights are forgotten."""


class EarlyStop(Record):
    """Training ends when the held-out score no longer improves: a choice of epochs by the fold that is scored."""

    patience: int = Field(default=5, ge=1)
    """Epochs without a better score, after which training ends."""
    min_gain: NotNegative = 0.0
    """Smallest difference that counts as better, in units of the metric."""


class Freeze(Record):
    """Weights that stay as they are, for fine-tuning; norms with such weights keep their running statistics too."""

    layers: Annotated[Names, Field(min_length=1)] = ("backbone",)
    """`backbone`: all but the last layer; or the first parts of parameter names, such as [conv1, layer1]."""
    n_epochs: Annotated[int, Field(ge=1)] | None = None
    """How long, from the start; without it, the whole training."""


class TrainSpec(Record):
    """The loop."""

    epochs: int = Field(default=10, ge=1)
    """Passes over the training part."""
    epoch_steps: Block[Annotated[int, Field(ge=1)]] = None
    """Iterations instead of passes: an epoch is this many optimiser steps, a part of a pass or several, and `epochs`
    counts those; after each the fold is scored."""
    n_rows: Block[Annotated[int, Field(ge=1)]] = None
    """Learn from this many rows of the training part, drawn anew for each seed, with its shares of the classes."""
    batch_size: int = Field(default=128, ge=1)
    """Samples per optimiser step (before they are split by `accumulation`)."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches per optimiser step; their gradients add up to that of the whole batch."""
    clip_norm: Block[Positive] = None
    """Largest global norm of the gradient."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """`balanced`: every class equally often in an epoch; scarce rows repeat."""
    last_batch: Literal["auto", "even", "drop", "pad"] = "auto"
    """Where batches do not divide an epoch: `even`: all of nearly one size; `drop`: what is left over waits for another
    epoch; `pad`: the last batch is filled with samples of the epoch's start. `auto`: pad when compiled, else even."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the multiplications; `auto`: bf16 where the hardware multiplies it natively, else fp32."""
    channels_last: bool = True
    """Images: keep a pixel's channels side by side in memory, which convolutions like."""
    compile: bool = False
    """Compile the model's training pass with torch.compile, for batches of one shape; worth it on GPUs only."""
    early_stop: Block[EarlyStop] = None
    """End when the score stops improving."""
    freeze: Block[Freeze] = None
    """Weights that do not move."""
    weights: Literal["last", "best", "ema"] = "last"
    """Which weights predict. `best` is selected on the fold that it is scored on."""
    keep_epochs: int = Field(default=0, ge=0)
    """How many of the last epochs' weights each unit keeps, for `podium soup RUN --epochs N`."""
    score_training: bool = False
    """Score the rows that are learnt from too, after each epoch and as they are: `train_<metric>` in history.csv."""
    layer_statistics: bool = False
    """Write activations and gradients of each layer into layers.csv, before training and after each epoch; changes no
    bit of the training."""

    @model_validator(mode="after")
    def _compiles_one_shape(self) -> TrainSpec:
        if self.compile and self.last_batch == "even":
            raise ValueError("last_batch: even makes batches of two sizes, but compile: wants one; use pad or drop")
        if self.compile and self.batch_size % self.accumulation:
            raise ValueError(
                f"compile: wants micro-batches of one size, but batch_size: {self.batch_size} is no multiple of"
                f" accumulation: {self.accumulation}"
            )
        return self


class PredictSpec(Record):
    """How rows are predicted.

    Views and their average make the final predictions: `heldout.parquet` and `test.parquet`, and so OOF and `cv.json`,
    which is the score that counts. While a unit trains, its fold is scored on items as they are, which is fast; so
    `history.csv`, and the choice of `train.weights: best`, do not see the views.
    """

    batch_size: int = Field(default=512, ge=1)
    """Items per forward pass."""
    views: Views = ("identity",)
    """In which ways the model sees each item; answers are averaged over views, then over the items of a row."""
    average: Literal["probs", "logits"] = "probs"
    """What is averaged over views; the mean of logits is activated."""


class Experiment(Record):
    """One way of training, complete: nothing that decides the result is left outside, but for the task and folds."""

    folds: FoldSpec = FoldSpec()
    """The split."""
    input: Input = Input()
    """What the model gets to see of an item."""
    augment: Augment = Augment()
    """Changes of training samples."""
    mix: Block[MixSpec] = None
    """Samples mixed with others of their batch."""
    model: ModelSpec
    """The network."""
    loss: Block[LossSpec] = None
    """By default cross-entropy (multiclass, ordinal softmax), bce (binary, multilabel) or mse (values)."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """What moves the weights."""
    schedule: ScheduleSpec = Cosine(name="cosine")
    """The learning rate over time; none of them looks at a score."""
    train: TrainSpec = TrainSpec()
    """The loop."""
    pseudo: Block[PseudoSpec] = None
    """Rows that earlier models labelled."""
    consistency: Block[ConsistencySpec] = None
    """Rows without labels, taught by the averaged model (FixMatch)."""
    sam: Block[SamSpec] = None
    """The gradient at the worst point nearby."""
    ema: Block[EmaSpec] = None
    """Averaged weights."""
    predict: PredictSpec = PredictSpec()
    """How rows are predicted."""
    seeds: Annotated[tuple[int, ...], Distinct] = Field(default=(0,), min_length=1)
    """Every fold is trained once for each seed; OOF is the mean over seeds."""
