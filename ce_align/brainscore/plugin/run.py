"""Plugins in a clean process: loaded by Brain-Score's own loader, and scored."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.plugin import Finding, fault, note, warning
from ce_align.brainscore.plugin.writing import EMBEDDED, recovered_spec
from ce_align.checks import named_some
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, DataError
from ce_align.files import cache_folder, check_regular, read_text, scratch_folder

__all__ = ["Trial", "environment", "overlay", "run_plugins"]

#: Scenes on which plugins are scored, and the population that sees them.
N_IMAGES = 100
N_NEUROIDS = 24
N_REPETITIONS = 10

#: Seconds for loading and scoring one plugin.
TIME_LIMIT = 1800

#: Variables that the process keeps; credentials are not among them.
KEPT = (
    *("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "REQUESTS_CA_BUNDLE"),
)

#: Files of a plugin of ours; nothing else of it goes into the process.
OURS = (
    *("__init__.py", "model.py", "test.py", "requirements.txt", "metadata.yml"),
    *(EMBEDDED, "region_layer_map/*.json"),
)


class Trial(NamedTuple):
    """What is wrong with a plugin that ran, and its raw² / ceiling, if it has one."""

    findings: list[Finding]
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
    with scratch_folder("trial") as scratch, overlay(folders) as overlaid:
        job = scratch / "job"
        job.mkdir()
        paths = [str(job / f"scene-{row:04d}.png") for row in range(N_IMAGES)]
        for row, path in enumerate(paths):
            recording.images.load(row).save(path)
        told = {"identifiers": [*plugins], "images": paths, "region": recording.region}
        (job / "job.json").write_text(json.dumps(told), encoding="utf-8")
        ended = _probe(job, environment(overlaid, scratch), TIME_LIMIT * len(plugins))
        unreached = {"error": ended, "unreachable": False}
        facts = _results(job / "results")
        trials = {
            identifier: _judged(
                facts.get(identifier, unreached), job / f"{number}.npz", recording
            )
            for number, identifier in enumerate(plugins)
        }
        left = _left_behind(scratch / "tmp")
    return {
        identifier: Trial([*trial.findings, *left], trial.score)
        for identifier, trial in trials.items()
    }


@contextmanager
def overlay(folders: Sequence[Path]) -> Iterator[Path]:
    """A folder for the head of the path, where Brain-Score has only these plugins.

    Everything else of the installed package is linked. The one part that follows links
    back to find its plugins is copied. The installed package is not touched.

    Raises
    ------
    CeAlignError
        If Brain-Score is not installed.
    """
    found = importlib.util.find_spec("brainscore_vision")
    places = found.submodule_search_locations if found else None
    if not places:
        raise CeAlignError(
            "brainscore-vision is not installed; pip install brainscore-vision"
        )
    installed = Path(next(iter(places)))
    with scratch_folder("overlay") as scratch:
        package = scratch / "brainscore_vision"
        helpers = package / "model_helpers"
        helpers.mkdir(parents=True)
        (package / "models").mkdir()
        _link(installed, package, but=("models", helpers.name))
        copied = "brain_transformation"
        _link(installed / helpers.name, helpers, but=(copied,))
        shutil.copytree(installed / helpers.name / copied, helpers / copied)
        init = installed / "models" / "__init__.py"
        (package / "models" / "__init__.py").symlink_to(init)
        for folder in folders:
            _copy_plugin(folder, package / "models" / folder.name)
        yield scratch


def _link(source: Path, target: Path, but: Sequence[str]) -> None:
    for path in source.iterdir():
        if path.name not in (*but, "__pycache__"):
            (target / path.name).symlink_to(path)


def _copy_plugin(folder: Path, target: Path) -> None:
    if recovered_spec(folder) is None:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
        shutil.copytree(folder, target, ignore=ignored, symlinks=True)
        return
    # A cached .pyc, or a package beside model.py, would come before the code.
    for path in (path for pattern in OURS for path in folder.glob(pattern)):
        if path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


def environment(overlaid: Path, scratch: Path) -> dict[str, str]:
    """Variables of a clean process: caches of its own, no credentials, no pip."""
    homes = {
        name: str(scratch / "home" / name.lower())
        for name in ("HOME", "BRAINIO_HOME", "BRAINSCORE_HOME", "RESULTCACHING_HOME")
    }
    for folder in (*map(Path, homes.values()), scratch / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        **homes,
        "TMPDIR": str(scratch / "tmp"),
        "TORCH_HOME": str(cache_folder("plugins")),  # weights that were verified
        "PYTHONPATH": str(overlaid),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BS_INSTALL_DEPENDENCIES": "no",
        "RESULTCACHING_DISABLE": "1",
        "BRAINSCORE_SKIP_MEMORY_CHECK": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _probe(job: Path, variables: Mapping[str, str], seconds: int) -> str:
    """Run the probe; how it ended, for plugins that it did not come to."""
    script = Path(__file__).with_name("probe.py")
    try:
        ended = subprocess.run(
            # Without -P the script's own folder would be importable.
            [sys.executable, "-P", str(script), str(job / "job.json")],
            env=dict(variables),
            cwd=job,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {seconds} s"
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return f"the process ended ({ended.returncode}): {lines[-1] if lines else 'silent'}"


def _results(path: Path) -> dict[str, dict[str, Any]]:
    """Facts by identifier, from what the probe wrote."""
    if not path.is_file():
        return {}
    try:
        lines = read_text(path, errors="replace").splitlines()
        return {facts["identifier"]: facts for facts in map(json.loads, lines)}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("a plugin has tampered with the results of its run") from error


def _judged(facts: Mapping[str, Any], arrays: Path, recording: Recording) -> Trial:
    """What the facts about one plugin mean."""
    if "error" in facts:
        if facts["unreachable"]:
            message = "not run, because its weights cannot be reached: "
            return Trial([warning("run", message + facts["error"])])
        return Trial([fault("run", f"Brain-Score cannot load it: {facts['error']}")])
    findings: list[Finding] = []
    if facts["answers_to"] != facts["identifier"]:
        message = f"it answers to {facts['answers_to']!r}"
        findings.append(fault("identifier", message))
    if not facts["deterministic"]:
        message = "the same images give other activations"
        findings.append(fault("deterministic", message))
    with np.load(check_regular(arrays)) as stored:
        findings += _input(facts["image_size"], stored["prepared"], recording)
        if not facts["finite"]:
            findings.append(fault("run", "activations are NaN or infinite"))
            return Trial(findings)
        score = _score(stored["features"], recording)
    message = (
        f"loaded by Brain-Score; {facts['region']} scores {score:.3f} on "
        f"{len(recording.images)} simulated scenes"
    )
    return Trial([*findings, note("run", message)], score)


def _input(
    size: Any, prepared: NDArray[Any], recording: Recording
) -> Iterator[Finding]:
    """Whether images become what the published networks were shown."""
    import torch

    from ce_align.models.preprocessing import Preprocessing

    check = "preprocessing"
    if prepared.ndim != 4 or prepared.shape[1] != 3 or prepared.shape[2] != size:
        message = f"an image becomes {prepared.shape}, but image_size says {size}"
        yield fault(check, message)
        return
    image = recording.images.load(0)
    for interpolation in ("bilinear", "bicubic"):
        usual = Preprocessing(input_size=size, interpolation=interpolation)
        pixels = torch.from_numpy(usual.resize(image)[None].copy())
        if np.allclose(usual.normalise(pixels).numpy(), prepared, atol=1e-4):
            return
    yield warning(
        check,
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
    return normalised_score(raw, split_half_ceiling(recording.repeated()[0]).value)


def _left_behind(folder: Path) -> list[Finding]:
    """Files that are left in the folder of temporary files, but Brain-Score's own."""
    left = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.relative_to(folder).parts[0].startswith("brainscore-")
    ]
    if not left:
        return []
    n_bytes = sum(path.stat().st_size for path in left)
    names = named_some([path.name for path in left])
    message = f"temporary files are left behind, {n_bytes / 1e6:.1f} MB: {names}"
    return [fault("temporary-files", message)]
