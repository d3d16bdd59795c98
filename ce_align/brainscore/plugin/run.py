"""Plugins in a clean process: loaded by Brain-Score's own loader, and scored."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.plugin.findings import Finding, fault, note, warning
from ce_align.brainscore.plugin.overlay import environment, overlay
from ce_align.checks import named_some
from ce_align.data.recordings import Recording
from ce_align.errors import DataError
from ce_align.files import scratch_folder

__all__ = ["Trial", "run_plugins"]

#: Scenes on which plugins are scored, and the population that sees them.
N_IMAGES = 100
N_NEUROIDS = 24
N_REPETITIONS = 10

#: Seconds for loading and scoring one plugin.
TIME_LIMIT = 1800

#: Temporary folders that Brain-Score itself leaves.
BRAINSCORE_LEAVES = "brainscore-"


@dataclass(frozen=True)
class Trial:
    """What happened to one plugin.

    Attributes
    ----------
    findings : what is wrong with it
    score : raw² / ceiling on simulated scenes, None where it could not be scored
    """

    findings: list[Finding] = field(default_factory=list)
    score: float | None = None


def run_plugins(plugins: Mapping[str, Path]) -> dict[str, Trial]:
    """Load plugins in a clean process, look at scenes with them, and score them.

    This executes the plugins' code.

    Parameters
    ----------
    plugins : identifier to folder

    Returns
    -------
    trials : by identifier

    Raises
    ------
    CeAlignError
        If Brain-Score is not installed.
    DataError
        If a plugin interferes with the run.
    """
    from ce_align.data.simulation import simulated_recording

    recording = simulated_recording(
        n_images=N_IMAGES, n_neuroids=N_NEUROIDS, n_repetitions=N_REPETITIONS
    ).recording
    folders = list(dict.fromkeys(plugins.values()))
    with (
        scratch_folder("trial") as scratch,
        overlay(folders) as overlaid,
    ):
        job = _write_job(scratch, list(plugins), recording)
        ended = _run(job, environment(overlaid, scratch), len(plugins))
        facts = _results(job.parent)
        trials = {
            identifier: _judged(
                facts.get(identifier, {"error": ended, "unreachable": False}),
                job.parent / f"{number}.npz",
                recording,
            )
            for number, identifier in enumerate(plugins)
        }
        left = _left_behind(scratch / "tmp")
    return {
        identifier: Trial([*trial.findings, *left], trial.score)
        for identifier, trial in trials.items()
    }


def _write_job(scratch: Path, identifiers: list[str], recording: Recording) -> Path:
    folder = scratch / "job"
    folder.mkdir()
    paths = []
    for row, _ in enumerate(recording.images.ids):
        path = folder / f"scene-{row:04d}.png"
        recording.images.load(row).save(path)
        paths.append(str(path))
    job = {"identifiers": identifiers, "images": paths, "region": recording.region}
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def _run(job: Path, variables: Mapping[str, str], n_plugins: int) -> str:
    """Run the probe; how it ended, for plugins that it did not come to."""
    script = Path(__file__).with_name("probe.py")
    # Without -P the script's own folder would be importable.
    command = [sys.executable, "-P", str(script), str(job)]
    try:
        ended = subprocess.run(
            command,
            env=dict(variables),
            cwd=job.parent,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT * n_plugins,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {TIME_LIMIT * n_plugins} s"
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return f"the process ended ({ended.returncode}): {lines[-1] if lines else 'silent'}"


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "results"
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    try:
        found = [json.loads(line) for line in lines]
        return {facts["identifier"]: facts for facts in found}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("a plugin has tampered with the results of its run") from error


def _judged(facts: Mapping[str, Any], arrays: Path, recording: Recording) -> Trial:
    """What the facts about one plugin mean."""
    if "error" in facts:
        if facts["unreachable"]:
            message = (
                f"not run, because its weights cannot be reached: {facts['error']}"
            )
            return Trial([warning("run", message)])
        return Trial([fault("run", f"Brain-Score cannot load it: {facts['error']}")])
    findings = list(_facts_findings(facts))
    with np.load(arrays) as stored:
        findings += _input_findings(facts, stored["prepared"], recording)
        score = _score(stored["features"], recording) if facts["finite"] else None
    if score is not None:
        message = (
            f"loaded by Brain-Score; {facts['region']} scores {score:.3f} on "
            f"{len(recording.images)} simulated scenes"
        )
        findings.append(note("run", message))
    return Trial(findings, score)


def _facts_findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if facts["answers_to"] != facts["identifier"]:
        yield fault("identifier", f"it answers to {facts['answers_to']!r}")
    if not facts["deterministic"]:
        yield fault("deterministic", "the same images give other activations")
    if not facts["finite"]:
        yield fault("run", "activations are NaN or infinite")


def _input_findings(
    facts: Mapping[str, Any], prepared: NDArray[Any], recording: Recording
) -> Iterator[Finding]:
    """Whether images become what the published networks were shown."""
    import torch

    from ce_align.models.preprocessing import Preprocessing

    size = facts["image_size"]
    if prepared.ndim != 4 or prepared.shape[1] != 3 or prepared.shape[2] != size:
        yield fault(
            "preprocessing",
            f"an image becomes {prepared.shape}, but image_size says {size}",
        )
        return
    image = recording.images.load(0)
    for interpolation in ("bilinear", "bicubic"):
        usual = Preprocessing(input_size=size, interpolation=interpolation)
        pixels = torch.from_numpy(usual.resize(image)[None].copy())
        if np.allclose(usual.normalise(pixels).numpy(), prepared, atol=1e-4):
            return
    yield warning(
        "preprocessing",
        "images are not prepared by ImageNet's normalisation of the whole image; make "
        "sure that it is as in training",
    )


def _score(features: NDArray[np.float32], recording: Recording) -> float:
    """Brain-Score's PLS score of a plugin's activations."""
    from ce_align.metrics.ceiling import split_half_ceiling
    from ce_align.metrics.predictivity import (
        brainscore_splits,
        cross_validated_r,
        normalised_score,
        summarise,
    )

    splits = brainscore_splits(len(recording.images), stratify=recording.strata("none"))
    raw, _ = summarise(cross_validated_r(features, recording.averaged(), splits))
    return normalised_score(raw, split_half_ceiling(recording.responses).value)


def _left_behind(folder: Path) -> list[Finding]:
    """Files that are left in the folder of temporary files, but Brain-Score's own."""
    left = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.relative_to(folder).parts[0].startswith(BRAINSCORE_LEAVES)
    ]
    if not left:
        return []
    n_bytes = sum(path.stat().st_size for path in left)
    names = named_some([path.name for path in left])
    message = f"temporary files are left behind, {n_bytes / 1e6:.1f} MB: {names}"
    return [fault("temporary-files", message)]
