"""The training loop: steps of AdamW on the data of a task, in a run directory that an interrupted run resumes from.

The loop knows the optimizer and its schedule, checkpoints, signals and reports. A `Task` knows the model, the data and
the loss. `model.training.run_directory` lists the files in the run directory.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch

from bpe.errors import InputError
from bpe.files import replacing
from model.training.checkpoints import RunCheckpoints
from model.training.interrupts import SignalsBetweenSteps
from model.training.loss import Evaluation
from model.training.metrics import MetricsLog, read_metrics
from model.training.parallel import Parallel
from model.training.plot import plot_loss
from model.training.progress import ProgressLine
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
    progress: TextIO | None = None,
    parallel: Parallel | None = None,
    notes: Mapping[str, Any] | None = None,
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
        progress: Stream for progress; None for stderr.
        parallel: The processes that train together, entered. Each of them calls this function, and all of them see the
            same directories. None: the processes that torchrun started, each with the whole model, or this process
            alone.
        notes: Fields that run.json records beside the settings.

    Returns:
        The result, the same on all processes.

    Raises:
        InputError: When data, settings or checkpoints do not fit each other, when an earlier run in the directory has
            other settings, or when more than config.max_skipped batches fail.
        KeyboardInterrupt: After an interrupt.
    """
    if parallel is None:
        with Parallel(device=config.device) as parallel:
            return train(task, run, config, restart=restart, progress=progress, parallel=parallel, notes=notes)
    directory = RunDirectory(Path(run))
    show = ProgressLine(_stream(progress) if parallel.is_main else io.StringIO())

    # 1. Look at the run directory: it holds a finished run, an interrupted run, or none.
    settings = {"kind": task.kind, **task.settings(), "train": config.decisive()}
    if restart and parallel.is_main:
        directory.clear()
    parallel.barrier()
    if result := directory.finished_result(settings):
        show.say(f"{run}: already finished, {result.summary()}; restart the run to train it again")
        return result

    # 2. Build the model and its optimizer, and load the newest checkpoint.
    state = TrainState(task, config, parallel)
    checkpoints = RunCheckpoints(directory.checkpoints, config.keep_checkpoints, parallel)
    newest = checkpoints.newest()
    if newest is not None:
        state.restore(checkpoints, newest)
        show.say(f"{run}: resuming after step {state.step}")
    if parallel.is_main:
        directory.write_record(settings, notes)

    signals = SignalsBetweenSteps(patient=parallel.size > 1)
    with (
        contextlib.closing(state),
        contextlib.closing(_open_log(directory, config, parallel, None if newest is None else state.step)) as log,
        signals,
        torch.random.fork_rng(devices=[]),
    ):
        session = _Session(directory, task, state, checkpoints, log, show, newest)
        session.begin()
        while (share := state.share()) < 1 or state.step == 0:
            # 3. Make one step.
            try:
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

        # 6. Evaluate once more; save the model, the plot and the result.
        result = session.finish()
        if parallel.is_main:
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
    show: ProgressLine
    newest: Path | None
    saved_at: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Say what the MFU is relative to; evaluate and save a new run before its first step."""
        peak, source = self.state.peak_flops, self.state.peak_source
        self.show.say(f"{self.directory.path}: MFU is relative to {peak / 1e9:,.0f} GFLOP/s, {source}")
        if self.newest is None:
            self.evaluate()
            self.save()

    def report_step(self, share: float, measured: dict[str, float]) -> None:
        """Log a step and show it."""
        self.log.write("step", self.state, **measured)
        speed, mfu = measured["tokens_per_second"], measured["mfu"]
        self.show.step(share, self.state.loss, speed, mfu, self.state.seconds_left())

    def evaluate(self) -> Evaluation | None:
        """Evaluate the model, log the numbers and the sample, and show them."""
        measured, sample = self.state.evaluate()
        if measured is not None:
            bits_per_byte = _bits_per_byte(measured)
            self.log.write("evaluation", self.state, loss=measured.loss, bits_per_byte=bits_per_byte)
            self.show.evaluation(self.state.step, measured.loss, bits_per_byte, self.state.elapsed)
        if sample is not None:
            self.log.write("sample", self.state, text=sample)
            self.show.sample(sample)
        return measured

    def save_is_due(self) -> bool:
        """Return whether it is time for a checkpoint, by the clock of the main process."""
        return self.state.parallel.main(time.monotonic() - self.saved_at) >= self.state.config.checkpoint_every

    def save(self) -> None:
        """Save a checkpoint."""
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
        """Evaluate and save once more; save the model and the plot, and return the result."""
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
            self.task.save(self.directory.path, whole)
            self._plot()
        return result

    def _plot(self) -> None:
        n_parameters = sum(parameter.numel() for parameter in self.state.trained.values())
        title = f"{self.task.kind} of {n_parameters / 1e6:.1f} million parameters"
        with replacing(self.directory.plot) as path:
            plot_loss(read_metrics(self.directory.metrics), path, title)


def _stream(progress: TextIO | None) -> TextIO:
    return sys.stderr if progress is None else progress


def _open_log(directory: RunDirectory, config: TrainConfig, parallel: Parallel, step: int | None) -> MetricsLog:
    """Open the metrics of a run; the other processes write none."""
    if not parallel.is_main:
        return MetricsLog(Path(os.devnull), step)
    return MetricsLog(directory.metrics, step, directory.tensorboard if config.tensorboard else None)


def _bits_per_byte(measured: Evaluation) -> float | None:
    """Return the bits per byte, or None when the loss is not that of a text."""
    return measured.bits_per_byte if measured.bytes else None
