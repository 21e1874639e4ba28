"""Pre-training and fine-tuning (Sec. 3.1): one loop each, over Hugging Face accelerate.

A run lives in ``OUT/runs/<job>``: ``run.json`` (what was run, with which settings, versions, commit and data),
``metrics.jsonl``, ``checkpoint/`` while it lasts and ``model.safetensors`` when it is finished.  The same call takes up
a stopped run where it was and returns at once for a finished one; what another run has trained is taken over
(:mod:`mixcl.run.twins`).  One job works in a folder at a time.  SIGTERM and SIGINT save at the end of the step.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from mixcl import baselines, batches, diagnostics, windows
from mixcl.config.profile import checked_task
from mixcl.config.settings import Experiment, FinetuneConfig, PretrainConfig
from mixcl.data.splits import seen_by, split, start
from mixcl.data.store import Store, verify
from mixcl.errors import InputError, enough_memory
from mixcl.files import checked_name
from mixcl.handover import freeze, hand_over_from, parameter_groups
from mixcl.model import seeded, segmentation_model
from mixcl.objective import Objective, floors, gradient_coverage, gradient_norms
from mixcl.run import checkpoint, determinism, device, log, record, signals, twins
from mixcl.run.folders import Restart, begin
from mixcl.run.jobs import finetune_job
from mixcl.run.log import Steps, gradient_norm
from mixcl.run.record import alone, provenance, read_card, run_folder, write_card

Step = Callable[[int, dict[str, Any]], tuple[Tensor, dict[str, Any]]]


@enough_memory()
def pretrain(
    config: Experiment, out: Path, *, job: str = "pretrain", restart: Restart = "never", progress: bool = True
) -> Path:
    """Pre-train on the collections ``config.data.pretrain``; the folder of the run.

    InputError where nothing is prepared, a run of that name has other settings or is at work, a file is damaged, a
    loss, gradient or weight is not finite, or the disk is full.
    """
    store = Store(config.data.store_dir(out), settings=config.data)
    cases = [case for name in config.data.pretrain for case in store.cases(name)]
    if not cases:
        raise InputError("data.pretrain names no collection to pre-train on; name one")
    settings = config.pretrain
    decides = record.pretraining_decides(config, store.fingerprint(config.data.pretrain))
    steps = settings.total_steps(len(cases))
    card = provenance(config, job=job, seed=settings.seed, data=decides["data"], cases=len(cases), steps=steps)
    with seeded(settings.seed):
        objective = baselines.objective(config)
    with device.machine(config.run) as accelerator, alone(run_folder(out, job), accelerator.is_main_process):
        baselines.check_ranks(objective, accelerator.num_processes)
        pairs = batches.PairDataset(cases, config, steps * settings.batch)
        loop = _Loop(accelerator, objective, pairs, config, settings, out, card, decides, restart, progress)
        if isinstance(objective, Objective):
            samples = settings.batch if config.loss.sync_correlation else settings.batch // accelerator.num_processes
            loop.card["floors"] = floors(objective.model, config.loss, samples)
        patches = diagnostics.probe(cases, config)

        def step(number: int, raw: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
            terms = loop.module(batches.pretraining_batch(raw, config, accelerator.device))
            values: dict[str, Any] = {**terms._asdict()}
            if settings.gradients_every and number % settings.gradients_every == 0:
                values["gradients"] = gradient_norms(objective, terms)
                if number == 0:
                    values["gradient_coverage"] = gradient_coverage(objective, terms)
            if loop.probes(number):
                features = diagnostics.measure_features(objective.model, patches, projected=objective.trains_projectors)
                values["probe"] = {"step": number, **features}
            return terms.total, values

        return loop.run(step, objective.model)


@enough_memory()
def finetune(
    config: Experiment, out: Path, *, task: str, percent: float, fold: int, arm: str, seed: int = 0,
    init: Path | None = None, restart: Restart = "never", progress: bool = True,
) -> Path:  # fmt: skip
    """Fine-tune a stock UNETR on ``percent`` of the training part of one fold; the folder of the run.

    The scans, the decoder and everything that ``config.finetune.transfer`` does not hand over, the patches and their
    distortions depend on ``fold`` and ``seed``, alike in every arm.  The weights kept are those of the last step (R17).

    ``task`` is a collection of ``config.data.finetune``, ``fold`` one of ``config.grid.n_folds`` (R18), ``arm`` a name
    for tables, such as ``scratch`` or ``mixcl``, and ``init`` pre-trained weights or the folder of a pre-training run;
    None is training from scratch.  InputError as of :func:`pretrain`, and for a start that was fine-tuned on the task.
    """
    store = Store(config.data.store_dir(out), settings=config.data)
    train, test = split(store.cases(checked_task(config, task)), config, fold, percent, seed)
    names, settings, own, data = train[0].names, config.finetune, start(fold, seed), store.fingerprint((task,))
    steps = settings.total_steps(len(train))
    with seeded(own):
        net = segmentation_model(config.model, len(names))
    if settings.freeze:
        freeze(net)
    handed, origin, source = hand_over_from(init, net, config, task, data)
    decides = record.finetuning_decides(
        config, data, task=task, percent=percent, fold=fold, arm=arm, seed=seed, init=origin, start=own,
        train=[c.id for c in train],
    )  # fmt: skip
    job = finetune_job(task, percent, checked_name("arm", arm), fold, seed)
    card = provenance(
        config, job=job, task=task, percent=percent, fold=fold, arm=arm, seed=seed, data=decides["data"],
        labels={str(k): v for k, v in names.items()}, train=decides["train"], test=[c.id for c in test],
        hand_over=handed, pretraining=source, steps=steps,
    )  # fmt: skip
    with device.machine(config.run) as accelerator, alone(run_folder(out, job), accelerator.is_main_process):
        patches = batches.SegmentationDataset(train, config, own, steps * settings.batch)
        loop = _Loop(accelerator, net, patches, config, settings, out, card, decides, restart, progress)
        criterion = baselines.SegmentationLoss(settings, spread=accelerator.num_processes > 1)

        def step(number: int, raw: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
            values: dict[str, Any] = {}
            if loop.probes(number):
                values["test"] = {"step": number, **windows.measure_test(net, test, config, names)}
            image, label = batches.finetuning_batch(raw, config.finetune_augment, own, names, accelerator.device)
            loss = criterion(device.forward(loop.module, image, config.model), label)
            return loss, {**values, "total": loss}

        return loop.run(step, net)


def cosine(step: int, steps: int, lr: float) -> float:
    """Learning rate of a step, from ``lr`` at step 0 towards 0 at ``steps`` (R15).

    >>> cosine(500, 1000, 1e-4)
    5e-05
    """
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


class _Loop:
    """What both trainings share: optimiser, schedule, progress, metrics, checkpoints."""

    metrics: log.Metrics | None = None  # of the main rank, while it trains

    def __init__(
        self, accelerator: Accelerator, module: nn.Module, data: batches.PatchDataset, config: Experiment,
        settings: PretrainConfig | FinetuneConfig, out: Path, card: dict[str, Any], decides: dict[str, Any],
        restart: Restart, progress: bool,
    ) -> None:  # fmt: skip
        self.accelerator, self.plain, self.data = accelerator, module, data
        self.config, self.settings, self.restart = config, settings, restart
        self.card, self.steps = {**card, "decides": decides}, int(card["steps"])
        self.main, self.ranks = accelerator.is_main_process, accelerator.num_processes
        self.progress, self.folder = progress and self.main, run_folder(out, card["job"])
        batches.share(settings.batch, self.ranks)
        if self.main:
            if restart != "never":  # before what is there goes
                log.check_tracker(config.run.tracker)
                verify(data.cases)
            begin(self.folder, decides, restart)
        accelerator.wait_for_everyone()
        # fused: one pass, and on a CPU a square root that is alike on all processors, as MKL's is not
        groups = parameter_groups(module, getattr(settings, "encoder_rate", 1.0))
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        device.faster(module, config.run)
        self.module, self.wrapped = accelerator.prepare(module, self.optimizer)
        self.largest = device.largest(accelerator)  # of the ranks' numbers

    def probes(self, number: int) -> bool:
        """Whether this rank measures at a step: the main one every ``probe_every`` (0: never), and at the last."""
        every = self.settings.probe_every
        return self.main and every > 0 and (number % every == 0 or number == self.steps - 1)

    def run(self, step: Step, kept: nn.Module) -> Path:
        """Train to the last step, from where the run was left; ``kept`` is what the finished run keeps."""
        with twins.shared(self.accelerator, self.folder, self.card, self.restart != "always"):
            started = time.perf_counter()  # without the wait for a twin
            finished = checkpoint.finished(self.folder)
            before = {} if finished else checkpoint.restore(self.folder, self.plain, self.optimizer, self._warn)
            first = self.steps if finished else int(before.get("step", 0))
            device.agree(self.largest, first, self.folder)
            if finished:
                self._renew_card()
                return self.folder
            self._take_up(before)
            self.metrics = self._open(before)
            with signals.stopping() as stop:
                done = self._train(first, Steps(before.get("pending", ())), step, stop)
                if self.metrics is not None:
                    self.metrics.close()
                if done == self.steps:
                    self._finish(kept, time.perf_counter() - started, self.steps - first)
        return self.folder

    def _train(self, first: int, pending: Steps, step: Step, stop: signals.Stop) -> int:
        """Take the steps that are left, ``pending`` being those since the last record; how many are done."""
        left = batches.batches(
            self.data, self.settings.batch, start=first, steps=self.steps, rank=self.accelerator.process_index,
            ranks=self.ranks, workers=device.workers(self.config.run, self.ranks),
            pin=self.accelerator.device.type == "cuda",
        )  # fmt: skip
        done, name = first, self.card["job"]
        bar = tqdm(total=self.steps, initial=first, desc=name, disable=not self.progress, unit="step")
        self.module.train()
        for number, raw in enumerate(batches.prefetch(left, self.accelerator.device), start=first):
            done = number + 1
            pending.add(done, raw["sample"].tolist(), *self._update(number, step, raw))
            asked = self.largest(stop.number)  # one rank is, and all stop
            last = done == self.steps
            due = last or done % self.settings.checkpoint_every == 0
            logs, saves = due or done % self.settings.log_every == 0, due or asked
            if logs or saves:
                pending.check(name, partial(batches.scans, self.data), self.plain if saves else None)
                if self.ranks > 1:
                    pending.share(self.accelerator.reduce)
            if logs:
                self._log(bar, done, pending.means())
                pending = Steps()
            if saves and not last:
                self._save(done, pending)
            bar.update()
            if done == first + 1:  # which also looks at the store and at what the terms pull at
                began = time.perf_counter()
            elif done == first + 2:
                self._warn(device.slow(self.config.run, time.perf_counter() - began, self.steps - done))
            if asked:
                stop.number = asked
                break
        bar.close()
        return done

    def _renew_card(self) -> None:
        """Of a finished run: what may have changed since and decides nothing, names of organs and the grid."""
        checkpoint.drop(self.folder)  # a kill may have come between the weights and this
        if self.main:
            now = {key: self.card[key] for key in ("config", "labels") if key in self.card}
            if (card := read_card(self.folder)) | now != card:
                write_card(self.folder, card | now)

    def _take_up(self, before: Mapping[str, Any]) -> None:
        """Look at the scans, and at what a checkpoint left behind; tell where another environment has begun the run."""
        verify(self.data.cases)
        self.trained_on = seen_by(self.config, self.data.cases, self.card)
        run, accelerator, begun = self.config.run, self.accelerator, before.get("bits", {})
        self.bits = determinism.environment(
            str(accelerator.device), run.threads, precision=device.precision(run), channels_last=run.channels_last,
            compile=run.compile, processes=self.ranks,
        )  # fmt: skip
        if begun and (unlike := determinism.unlike(self.bits, begun)):
            self._warn(f"{self.folder.name}: goes on with {'; '.join(unlike)}, as it began; its bits are neither's")
            begun = {"began": f"went on with {'; '.join(unlike)}", **begun}
        self.bits |= {"began": begun["began"]} if "began" in begun else {}
        if accelerator.scaler is not None and "scaler" in before:
            accelerator.scaler.load_state_dict(before["scaler"])

    def _open(self, before: Mapping[str, Any]) -> log.Metrics | None:
        """The card, written, and the metrics, taken up; of the main rank alone."""
        if not self.main:
            return None
        begun = read_card(self.folder).get("code", "") if before else ""
        if begun and not begun.endswith(self.card["code"]):  # weights that two versions of the code have made
            self.card["code"] = f"{begun}+{self.card['code']}"
        write_card(self.folder, self.card)
        state = {"step": before.get("step", 0), **before.get("metrics", {})}
        sent_to = log.start_tracker(self.config.run.tracker, self.folder, state["step"], self.card)
        return log.Metrics(self.folder, state, sent_to, self._warn)

    def _update(self, number: int, step: Step, raw: dict[str, Any]) -> tuple[dict[str, Any], Tensor | None]:
        """One step of the optimiser; what is logged of it, and the norm of its gradient."""
        for group in self.wrapped.param_groups:
            group["lr"] = group["rate"] * cosine(number, self.steps, self.settings.lr)
        loss, values = step(number, raw)
        self.accelerator.backward(loss)
        norm = gradient_norm(self.optimizer, self.accelerator.scaler)
        self.wrapped.step()
        self.wrapped.zero_grad(set_to_none=True)
        return values, norm

    def _save(self, done: int, pending: Steps) -> None:
        if self.metrics is not None:
            extra = {"metrics": self.metrics.state(), "pending": pending.state(), "bits": self.bits}
            if self.accelerator.scaler is not None:
                extra["scaler"] = self.accelerator.scaler.state_dict()
            checkpoint.save(self.folder, done, self.plain, self.optimizer, extra)
        self.accelerator.wait_for_everyone()

    def _warn(self, text: str) -> None:
        if text and self.main:
            tqdm.write(f"mixcl: {text}", file=sys.stderr)

    def _log(self, bar: Any, done: int, record: dict[str, Any]) -> None:
        """A record of the steps since the last one."""
        record["lr"] = cosine(done - 1, self.steps, self.settings.lr)
        if messages := diagnostics.warnings(record.get("probe", {}), record.get("gradients", {})):
            record["warnings"] = messages
            if self.progress:
                bar.write(f"{self.folder.name}, step {done}: {'; '.join(messages)}")
        if self.metrics is not None:
            self.metrics.write(done, record)
        shown = {k: f"{v:.3g}" for k, v in record.items() if k in ("total", "identity", "label", "recon")}
        bar.set_postfix(shown, refresh=False)

    def _finish(self, kept: nn.Module, seconds: float, steps: int) -> None:
        if self.metrics is not None:
            state = kept.state_dict()
            identity = checkpoint.weights_id(state)
            description = {key: self.card[key] for key in ("profile", "commit", "job", "seed", "data")}
            description |= {**self.trained_on, "id": identity, "model": self.config.model.model_dump(mode="json")}
            log_fields = {
                "seconds_of_last_part": round(seconds, 1), "steps_of_last_part": steps,
                "memory_gb": device.peak_gb(self.accelerator.device), "bits": self.bits,
                "weights": identity, "metrics": self.metrics.state()["sha256"],
            }  # fmt: skip
            write_card(self.folder, {**self.card, **log_fields})
            checkpoint.finish(self.folder, state, description)
        self.accelerator.wait_for_everyone()
