"""Images measured chunk by chunk: what a part of a chunk gave is kept at once, so a kill loses no more than one part.

Chunks are part of what a measurement is: a chunk's draws hang on the seed, its first image and the part alone. So
neither what was measured before, nor memory that runs out, which splits passes only, changes an answer; of a number
such as a probability, a pass of fewer images may round the last digit otherwise.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from advss.attacks.victim import as_victim
from advss.data.splits import Part, part_tensors
from advss.errors import UsageError
from advss.evaluations.form import accuracies, checked, checked_passes, checked_words
from advss.evaluations.packed import packed, unpacked
from advss.files import write_bytes
from advss.hookspecs import Evaluation
from advss.measuring import Answers, Victim
from advss.memory import ran_out
from advss.randomness import stream
from advss.training.reporting import Reporter
from advss.training.signals import StopRequest

STAGE = "evaluate"
FILES = "*-*-*.safetensors"  # of parts: first image, parts done, sha256


class Kept:
    """What chunks gave, as far as they were measured: one file for the last part of each, its sha256 in its name.

    With it stands how many seconds these parts took, in whatever processes.

    Several processes may measure the same at once: each finds and keeps what the others would, and the first that is
    done removes it.

    Args:
        folder: of these files; None keeps nothing.
        key: what they are of.
        whole: what is known of whole chunks from elsewhere, by their first image.
    """

    def __init__(
        self, folder: Path | None, key: Mapping[str, object], whole: Mapping[int, Mapping[str, Tensor]] | None = None
    ) -> None:
        self.folder, self.key, self.whole = folder, json.dumps(key, sort_keys=True), whole or {}
        self.seconds = dict[int, float]()  # that chunks took, by their first image, but for what ``whole`` knows
        self.useless = 0  # files that were read, and are damaged or of another key
        self.files = dict[int, list[Path]]()  # by the first image of a chunk, most parts first: a kill may leave two
        for path in folder.glob(FILES) if folder else ():
            self.files.setdefault(int(path.stem.split("-")[0]), []).append(path)
        for found in self.files.values():
            found.sort(key=lambda path: int(path.stem.split("-")[1]), reverse=True)

    def read(self, first: int, parts: int) -> tuple[int, Answers]:
        """How many of the parts of the chunk that begins with image ``first`` are done, and what they gave."""
        if first in self.whole:
            return parts, self.whole[first]
        for path in self.files.get(first, ()):
            with suppress(FileNotFoundError):  # another process has replaced it
                data = path.read_bytes()
                if hashlib.sha256(data + self.key.encode()).hexdigest()[:16] == path.stem.rpartition("-")[2]:
                    answers, more = unpacked(data)
                    self.seconds[first] = more["seconds"]
                    return int(path.stem.split("-")[1]), answers
                self.useless += 1
        return 0, {}

    def write(self, first: int, done: int, answers: Answers, took_s: float) -> None:
        """Keep what the first ``done`` parts of a chunk gave, in place of what fewer gave, which took less by that."""
        self.seconds[first] = self.seconds.get(first, 0.0) + took_s
        if self.folder is None:
            return
        data = packed(answers, seconds=self.seconds[first])
        digest = hashlib.sha256(data + self.key.encode()).hexdigest()[:16]
        path = self.folder / f"{first}-{done}-{digest}.safetensors"
        try:
            write_bytes(path, data)
        except UsageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            write_bytes(path, data)  # another process was done, and had removed the folder
        for before in self.files.get(first, ()):
            if before != path:
                before.unlink(missing_ok=True)
        self.files[first] = [path]

    def remove(self, firsts: Collection[int]) -> None:
        """What these chunks gave is stored elsewhere now, whoever wrote it; where they were all, the folder goes."""
        if self.folder is None:
            return
        left, gone = 0, set(firsts)
        for path in self.folder.glob(FILES):
            if int(path.stem.split("-")[0]) in gone:
                path.unlink(missing_ok=True)
            else:
                left += 1
        if not left:
            shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Measuring:
    """How images are measured.

    Attributes:
        device: where the model and the images go.
        seed: of the draws.
        chunk: images of a chunk, where the evaluation does not say it.
        reporter: told how many images are done.
        stop: looked at before each pass.
    """

    device: torch.device
    seed: int
    chunk: int
    reporter: Reporter
    stop: StopRequest

    def answers(self, evaluation: Evaluation, model: Victim, images: Part, kept: Kept, title: str) -> Answers:
        """What an evaluation says of the images: tensors (N, ...) on the CPU, by name.

        Raises:
            MisfitError: its answers are not of the contract's form.
            Interrupted: a signal came; the parts that were done are kept.
        """
        model.to(self.device)
        size, parts = evaluation.chunk or self.chunk, tuple(evaluation.parts(len(model.classes)))
        places = torch.arange(len(images))
        chunks = [images.select(places[start : start + size]) for start in range(0, len(images), size)]
        begun = [kept.read(int(chunk.index[0]), len(parts)) for chunk in chunks]
        if kept.useless:
            what = "damaged, or of another device or PyTorch: what they held is measured again"
            self.reporter.say(f"{kept.folder}: {kept.useless} files of what was measured are {what}")
        done = sum(count * len(chunk) for (count, _), chunk in zip(begun, chunks, strict=True))
        if known := sum(len(chunk) for (count, _), chunk in zip(begun, chunks, strict=True) if count == len(parts)):
            self.reporter.say(f"{title}: {known} of {len(images)} images were measured before, in the same way")
        if passes := checked_passes(evaluation.passes(len(model.classes))):
            all_passes = f"{passes:,} an image, {passes * len(images):,} in all"
            self.reporter.say(f"{title}: passes forward and backward of {len(images)} images: {all_passes}")
        unit = "image" if len(parts) == 1 else ""
        self.reporter.start(title, steps=len(images) * len(parts), done=done, epochs=1, unit=unit)
        try:
            with self.stop.asked_by(model), as_victim(model):
                found = []
                for place, (chunk, (count, before)) in enumerate(zip(chunks, begun, strict=True), 1):
                    which = f"chunk {place} of {len(chunks)}: " if len(chunks) > 1 else ""
                    run = _Chunk(self, evaluation, model, chunk, kept, which)
                    found.append(run.measured(parts, count, before, done))
                    done += len(chunk) * (len(parts) - count)
        finally:
            self.reporter.finish()
        return {name: torch.cat([answers[name] for answers in found]) for name in found[0]}


@dataclass(frozen=True)
class _Chunk:
    how: Measuring
    evaluation: Evaluation
    model: Victim
    images: Part
    kept: Kept
    which: str  # of several

    def measured(self, parts: Sequence[str], count: int, answers: Answers, done: int) -> Answers:
        """What the parts from ``count`` on give; ``done`` is the number of images that were done before, in parts."""
        if count == len(parts):
            return answers
        x_BCHW, label_B = part_tensors(self.images)
        x_BCHW, label_B = x_BCHW.to(self.how.device), label_B.to(self.how.device)
        first = int(self.images.index[0])
        for place, part in enumerate(parts[count:], count):
            self._say(part, answers)
            began = time.monotonic()
            answers = self._part(part, answers, x_BCHW, label_B)
            took_s = time.monotonic() - began
            self._say(part, answers)
            self.kept.write(first, place + 1, answers, took_s)
            done += len(label_B)
            self.how.reporter.step(step=done, images=len(label_B), metrics={})
            self.how.stop.check()
        return answers

    def _say(self, part: str, answers: Answers) -> None:
        """What is measured now, and under attack how many images stand: ``apgd-t 3, 62 of 100 images stand``."""
        if part:
            stands_B = accuracies(answers).get("ra")
            stand = "" if stands_B is None else f", {int(stands_B.sum())} of {len(stands_B)} images stand"
            self.how.reporter.doing(f"{self.which}{checked_words(self.evaluation.in_words(part), part)}{stand}")

    def _part(self, part: str, before: Answers, x_BCHW: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        """One part, again in smaller passes where memory runs out in the midst of it."""
        device, first = self.how.device, int(self.images.index[0])
        while True:
            draws = stream(device, self.how.seed, STAGE, part, first)
            known = {name: answer.to(device) for name, answer in before.items()}
            try:
                found = self.evaluation.measure_part(part, known, self.model, x_BCHW, label_B, draws)
                return checked(found, len(label_B))
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                self.model.halve(len(label_B))
