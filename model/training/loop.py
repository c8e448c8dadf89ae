"""The training loop: steps of AdamW on the data of a task, in a run directory that an interrupted run resumes from.

The loop knows the optimizer and its schedule, checkpoints, signals and reports. A `Task` knows the model, the data and
the loss. `model.training.run_directory` lists the files in the run directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bpe.drawing import INSTALL, PictureSettings, is_available
from bpe.errors import InputError
from bpe.progress import Progress, phase
from model.training.checkpoints import RunCheckpoints
from model.training.interrupts import SignalsBetweenSteps
from model.training.loss import Evaluation
from model.training.metrics import MetricsLog, read_metrics
from model.training.parallel import Parallel
from model.training.plot import draw_loss
from model.training.progress import TrainingReport, shown_run
from model.training.run_directory import RunDirectory
from model.training.settings import TrainConfig, TrainResult
from model.training.spikes import StepError
from model.training.state import TrainState
from model.training.task import Task


def train(
    task: Task,
    run: str | os.PathLike[str],
    config: TrainConfig,
    *,
    restart: bool = False,
    progress: Progress = None,
    parallel: Parallel | None = None,
    notes: Mapping[str, Any] | None = None,
    pictures: PictureSettings | None = PictureSettings(),  # noqa: B008, it cannot be changed
) -> TrainResult:
    """Train the model of a task in a run directory, or resume an interrupted run there.

    Called again with the same settings, it resumes an interrupted run from its newest checkpoint, to the same weights
    bit for bit. A finished run is left alone.

    An interrupt (Ctrl-C) or SIGTERM takes effect after the current step is made and saved: KeyboardInterrupt is
    raised. A second signal takes effect at once.

    A step whose loss is not finite or spikes (see `check_step`) takes the run back to its last checkpoint. Training
    continues from there without the batch of that step.

    Args:
        task: The model, the data and the loss.
        run: The run directory.
        config: Settings of the run.
        restart: Delete an earlier run in the directory first.
        progress: Where to show the progress. True or None: on the current reporter (see `bpe.progress`), else in the
            notebook or on stderr. False: nowhere. A stream: there.
        parallel: The processes that train together, entered. Each of them calls this function, and all of them see the
            same directories. None: the processes that torchrun started, each with the whole model, or this process
            alone.
        notes: Fields that run.json records beside the settings.
        pictures: Formats and colors of the plot of the loss; None to draw none. For a finished run, the plot is drawn
            if it is missing or the settings are not the default.

    Returns:
        The result, the same on all processes.

    Raises:
        InputError: When data, settings or checkpoints do not fit each other, when an earlier run in the directory has
            other settings, or when more than config.max_skipped batches fail.
        KeyboardInterrupt: After an interrupt.
    """
    if parallel is None:
        with Parallel(device=config.device) as parallel:
            return train(
                task, run, config, restart=restart, progress=progress, parallel=parallel, notes=notes, pictures=pictures
            )
    with shown_run(progress, parallel.is_main) as reporter:
        show = TrainingReport(reporter)
        return _train(task, RunDirectory(Path(run)), config, restart, show, parallel, notes, pictures)


def _train(
    task: Task,
    directory: RunDirectory,
    config: TrainConfig,
    restart: bool,
    show: TrainingReport,
    parallel: Parallel,
    notes: Mapping[str, Any] | None,
    pictures: PictureSettings | None,
) -> TrainResult:
    """Train in a run directory; see `train`."""
    run = directory.path
    # 1. Look at the run directory: it holds a finished run, an interrupted run, or none.
    settings = {"kind": task.kind, **task.settings(), "train": config.decisive()}
    if restart and parallel.is_main:
        directory.clear()
    parallel.barrier()
    if result := directory.finished_result(settings):
        show.say(f"{run}: already finished, {result.summary()}; restart the run to train it again")
        if pictures is not None and parallel.is_main and is_available():
            missing = not all(directory.plot.with_suffix(f".{name}").exists() for name in pictures.formats)
            if missing or pictures != PictureSettings():
                _draw(directory, task, pictures, show)
        return result

    if pictures is not None and not is_available():
        show.say(f"{run}: the plot of the loss is left out; it needs matplotlib, which is not installed: {INSTALL}")
        pictures = None

    # 2. Build the model and its optimizer, and load the newest checkpoint.
    with phase("building the model"):
        state = TrainState(task, config, parallel)
    checkpoints = RunCheckpoints(directory.checkpoints, config.keep_checkpoints, parallel)
    newest = checkpoints.newest()
    if newest is not None:
        with phase("loading the checkpoint"):
            state.restore(checkpoints, newest)
        show.say(f"{run}: resuming after step {state.step}")
    if parallel.is_main:
        directory.write_record(settings, notes)

    signals = SignalsBetweenSteps(patient=parallel.size > 1)
    with (
        contextlib.closing(state),
        contextlib.closing(_open_log(directory, config, parallel, None if newest is None else state.step)) as log,
        signals,
        contextlib.ExitStack() as stack,
        torch.random.fork_rng(devices=[]),
    ):
        session = _Session(directory, task, state, checkpoints, log, show, newest)
        session.begin()
        stack.enter_context(show.training(config.steps, config.minutes))
        while (share := state.share()) < 1 or state.step == 0:
            # 3. Make one step.
            try:
                with _compiling(config, state):
                    measured = state.make_step(share)
            except StepError as failure:
                session.roll_back(failure)
                continue
            # 4. Report it; from time to time, evaluate.
            session.report_step(share, measured)
            if state.step % config.eval_every == 0 and state.share() < 1:
                session.evaluate()
            # 5. From time to time, and on a signal, save a checkpoint.
            interrupted = parallel.any(signals.received)
            if interrupted or session.save_is_due():
                session.save()
            if interrupted:
                show.say(f"{run}: interrupted and saved after step {state.step}; run it again to resume")
                signals.take_effect(interrupted)

        stack.close()

        # 6. Evaluate once more; save the model, the plot and the result.
        result = session.finish()
        if parallel.is_main:
            if pictures is not None:
                with phase("drawing the loss"):
                    _draw(directory, task, pictures)
            directory.write_record(settings, notes, result)
        parallel.barrier()
    show.say(f"{run}: finished, {result.summary()}")
    return result


@dataclass
class _Session:
    """What happens around the steps: reports, evaluations, checkpoints, rollbacks and the end of the run."""

    directory: RunDirectory
    task: Task
    state: TrainState
    checkpoints: RunCheckpoints
    log: MetricsLog
    show: TrainingReport
    newest: Path | None
    saved_at: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Say what the MFU is relative to; evaluate and save a new run before its first step."""
        peak, source = self.state.peak_flops, self.state.peak_source
        if peak is not None:
            self.show.say(f"{self.directory.path}: MFU is relative to {peak / 1e9:,.0f} GFLOP/s, {source}")
        if self.newest is None:
            self.evaluate()
            self.save()

    def report_step(self, share: float, measured: dict[str, float]) -> None:
        """Log a step and show it."""
        self.log.write("step", self.state, **measured)
        state, budget = self.state, self.state.config.minutes
        done = state.step if budget is None else share * 60 * budget
        speed, mfu = measured["tokens_per_second"], measured.get("mfu")
        self.show.step(state.step, done, state.loss, speed, mfu, state.seconds_left())

    def evaluate(self) -> Evaluation | None:
        """Evaluate the model, log the numbers and the sample, and show them."""
        measured, sample = self.state.evaluate()
        if measured is not None:
            bits_per_byte = _bits_per_byte(measured)
            self.log.write("evaluation", self.state, loss=measured.loss, bits_per_byte=bits_per_byte)
            self.show.evaluation(self.state.step, measured.loss, bits_per_byte, self.state.elapsed)
        if sample is not None:
            self.log.write("sample", self.state, text=sample)
            self.show.sample(self.state.step, sample)
        return measured

    def save_is_due(self) -> bool:
        """Return whether it is time for a checkpoint, by the clock of the main process."""
        return self.state.parallel.main(time.monotonic() - self.saved_at) >= self.state.config.checkpoint_every

    def save(self) -> None:
        """Save a checkpoint."""
        with phase("saving a checkpoint"):
            self.newest = self.checkpoints.save(self.state.step, self.state.tensors(), self.state.numbers())
        self.saved_at = time.monotonic()

    def roll_back(self, failure: StepError) -> None:
        """Return to the newest checkpoint, and leave out the batch that failed."""
        state, config, newest = self.state, self.state.config, self.newest
        assert newest is not None  # a run saves before its first step
        failed = f"step {state.step}: {failure} ({self.task.describe(state.batch_number)})"
        if len(state.skipped) >= config.max_skipped:
            raise InputError(
                f"{failed}, after {len(state.skipped)} skipped batches; restart with a learning_rate below "
                f"{config.learning_rate}; the last good checkpoint is {newest}"
            )
        self.checkpoints.update_state(newest, skipped=[*state.skipped, state.batch_number])
        state.restore(self.checkpoints, newest)
        self.log.rewind(state.step)
        self.log.write("rollback", state, reason=failed)
        self.show.say(f"{failed}; back to step {state.step}, skipping that batch")

    def finish(self) -> TrainResult:
        """Evaluate and save once more; save the model, and return the result."""
        last = self.evaluate()
        self.save()
        result = TrainResult(
            directory=self.directory.path,
            steps=self.state.step,
            tokens=self.state.tokens,
            seconds=round(self.state.elapsed, 3),
            train_loss=self.state.loss,
            held_out_loss=None if last is None else last.loss,
            bits_per_byte=None if last is None else _bits_per_byte(last),
        )
        whole = self.state.parallel.gather(self.state.model)
        if whole is not None:
            with phase("saving the model"):
                self.task.save(self.directory.path, whole)
        return result


def _draw(directory: RunDirectory, task: Task, pictures: PictureSettings, show: TrainingReport | None = None) -> None:
    """Draw the plot of the loss, and say so where it is not the end of a run."""
    name = "/".join(directory.path.absolute().parts[-2:]) if len(str(directory.path)) > 40 else str(directory.path)
    files = draw_loss(read_metrics(directory.metrics), directory.plot, name, task.about(), pictures)
    if show is not None:
        show.say(f"{directory.path}: drew {', '.join(file.name for file in files)}")


def _compiling(config: TrainConfig, state: TrainState) -> contextlib.AbstractContextManager[object]:
    """Say that the first step of a process also compiles the layers."""
    is_first = config.compile and not state.has_stepped
    return phase("compiling the layers") if is_first else contextlib.nullcontext()


def _open_log(directory: RunDirectory, config: TrainConfig, parallel: Parallel, step: int | None) -> MetricsLog:
    """Open the metrics of a run; the other processes write none."""
    if not parallel.is_main:
        return MetricsLog(Path(os.devnull), step)
    return MetricsLog(directory.metrics, step, directory.tensorboard if config.tensorboard else None)


def _bits_per_byte(measured: Evaluation) -> float | None:
    """Return the bits per byte, or None when the loss is not that of a text."""
    return measured.bits_per_byte if measured.bytes else None
