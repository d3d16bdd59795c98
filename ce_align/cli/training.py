"""`ce-align train` and `ce-align pack`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ce_align.cli.flags import Asked, Found, Json, flags
from ce_align.cli.screen import message, print_json, print_sheets, progress_bars
from ce_align.errors import ConfigError
from ce_align.trainer.presets import PRESET_OPTIONS, TrainConfig, preset_config

if TYPE_CHECKING:
    from ce_align.data.imagesets import ImageSet
    from ce_align.trainer.estimate import Estimate
    from ce_align.trainer.presets import Hardware

__all__ = ["commands"]

commands = typer.Typer()

TRAIN_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align train --objective barlow --weight 0.2 --images imagenet/train

  ce-align train --objective simclr --weight 0.3 --images simulated --preset tiny

  ce-align train --objective mmcr --weight 0.1 --images train.zip --dry-run

  ce-align train --config runs/mmcr_l0.1/config.yaml --weight 0.3

  ce-align train --objective barlow --weight 0 --images train.zip
  --set families='\\[weak_a, weak_b]' --set options.off_diagonal=1e-3

A training writes its settings to config.yaml in its folder. A preset stands below such
a file, and a file below options.
"""
#: What a plan is worth.
UNCERTAINTY = "expect memory within a quarter, time within a half"
PACK_EXAMPLES = """\b
[bold]Examples[/bold]

  ce-align pack train.zip packed/train --short-edge 256
"""


@commands.command(epilog=TRAIN_EXAMPLES)
@flags(
    precision=Found("bf16 on a GPU, else 32"),
    gradient=Found("authors in the paper's presets, else full"),
)
def train(
    asked: Asked[TrainConfig],
    preset: Annotated[
        Literal[  # those of PRESETS, which a test holds
            "paper-in1k",
            "paper-in100",
            "weak",
            "in100",
            "in100-64",
            "vit-s",
            "cifar",
            "tiny",
        ],
        typer.Option(help="Named settings; defaults shown here are of paper-in1k."),
    ] = "paper-in1k",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run. \\[default: runs/OBJECTIVE_lWEIGHT, with "
            "_balanced or _line by --weighting, _untrained for 0 epochs]"
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="Labelled images for the accuracy of probe and neighbours."),
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(help="Recording that the network is scored on while it learns."),
    ] = None,
    score_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs between these scores. \\[default: as few as take 2 % of the "
            "time]",
        ),
    ] = None,
    hf: Annotated[
        bool, typer.Option("--hf", help="Write a folder for the hub, too.")
    ] = False,
    resume: Annotated[str, typer.Option(help="auto, never, or a checkpoint.")] = "auto",
    devices: Annotated[
        str, typer.Option(help="GPUs a node, or processes on a CPU; auto for all GPUs.")
    ] = "auto",
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that render views. \\[default: by cores]"),
    ] = None,
    augment: Annotated[
        Literal["auto", "cpu", "device"],
        typer.Option(
            help="Render views in worker processes (cpu) or where the network is "
            "(device); auto for the device if it is a GPU."
        ),
    ] = "auto",
    logger: Annotated[
        Literal["csv", "tensorboard", "wandb"], typer.Option(help="Logger.")
    ] = "csv",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and train nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a contrastive-equivariant network; goes on where it was stopped."""
    from ce_align.runner import run
    from ce_align.stages.train import TrainOptions
    from ce_align.trainer.data import open_images
    from ce_align.trainer.distributed import one_report
    from ce_align.trainer.presets import Hardware, resolve_devices

    hardware = Hardware(
        _count(devices), nodes, workers, logger, resume=resume, augment=augment
    )
    kind, _ = resolve_devices(hardware)
    precision = "bf16" if kind == "cuda" else "32"
    config = _config(asked, preset, {"precision": precision, **asked.given})
    with one_report():
        if dry_run:
            found = open_images(config.images, config.view_size, config.seed)
            _print_plan(config, found, hardware, json)
            return
        folder = out or _default_folder(config)
        with progress_bars() as progress:
            outcome = run(
                [config],
                folder,
                training=TrainOptions(
                    hardware, folder, validation, hf, recording, score_every
                ),
                progress=progress,
                notify=message,
            )
        for _, error in outcome.failures:
            raise error
    rows = outcome.rows
    if not rows:  # another process reports for this one
        return
    if json:
        print_json(rows)
    else:
        message(f"{folder} is a network now: ce-align score --model {folder}")
        if others := sorted(path.name for path in folder.glob(f"{folder.name}_at_*")):
            message(f"and so is each of {', '.join(others)} in it")


def _config(
    asked: Asked[TrainConfig], preset: str, given: dict[str, Any]
) -> TrainConfig:
    """Settings of a preset, with those that were given in place of its own."""
    asked.check_complete()
    if isinstance(given.get("options"), dict):
        usual = PRESET_OPTIONS.get(preset, {}).get(str(given["objective"]), {})
        given["options"] = {**usual, **given["options"]}
    config = preset_config(preset, **given)
    none = {name: None for name, value in given.items() if value is None}
    return TrainConfig(**{**config.model_dump(), **none}) if none else config


def _default_folder(config: TrainConfig) -> Path:
    name = f"{config.objective}_l{config.equivariance_weight:g}{config.of_weighting}"
    return Path("runs") / (name if config.epochs else f"{name}_untrained")


def _count(devices: str) -> int | None:
    if devices == "auto":
        return None
    if not devices.isdecimal() or not int(devices):
        raise ConfigError(f"devices is {devices!r}; give auto or a number from 1")
    return int(devices)


def _print_plan(
    config: TrainConfig, images: "ImageSet", hardware: "Hardware", json: bool
) -> None:
    from ce_align.costs.rates import MACHINES
    from ce_align.costs.work import cost_of
    from ce_align.report.sheet import facts_sheet
    from ce_align.stages.train import free_memory
    from ce_align.trainer.estimate import estimate
    from ce_align.trainer.memory import StepMemory
    from ce_align.trainer.prepared import Prepared
    from ce_align.trainer.presets import n_workers, resolve_devices

    memory, (free, n_processes) = StepMemory.of(config), free_memory(hardware)
    most = None if free is None else memory.most_pairs(free, n_processes)
    per_epoch = Prepared.of(config, images, hardware).plan().steps_per_epoch
    plan: Estimate | None = None
    if most is not None and most < config.pairs_per_step:
        # It may be meant for another machine: all is said but what would be measured.
        needed = memory.fixed + memory.each * config.pairs_per_step / n_processes
        message(
            f"not measured: a step needs about {needed / 2**30:.3g} GiB of each "
            f"process; here {most} pairs would fit"
        )
    else:
        plan = estimate(config, images, hardware)
    elsewhere = {name: cost_of(config, rates).total for name, rates in MACHINES.items()}
    kind, devices = resolve_devices(hardware)
    workers = n_workers(hardware, devices)
    if json:
        known = {
            "n_images": len(images),
            "device": kind,
            "n_processes": n_processes,
            "most_pairs": most,
            "seconds_elsewhere": elsewhere,
            "n_workers": workers,
            "seconds": None if plan is None else plan.seconds(workers),
        }
        measured = {} if plan is None else asdict(plan)
        print_json([{**config.model_dump(mode="json"), **measured, **known}])
        return
    lines = {
        "images": f"{len(images)}, views of {config.view_size} pixels",
        "network": f"{config.backbone}, {config.objective}, "
        f"λ {config.equivariance_weight:g} of {config.weighting}, {config.precision}",
        "processes": f"{n_processes} × {kind}, {workers} workers each",
        "steps": f"{config.epochs} epochs × {per_epoch} = {config.epochs * per_epoch}, "
        f"{config.pairs_per_step} pairs each",
        "gradient": config.gradient_rule,
        "largest step": "not known" if most is None else f"about {most} pairs",
        **({} if plan is None else _measured(plan, config, kind, workers)),
        "elsewhere": ", ".join(
            f"{_duration(seconds)} on {name}" for name, seconds in elsewhere.items()
        )
        + ": counted, from assumed speeds",
    }
    print_sheets([facts_sheet(lines)])


def _measured(
    plan: "Estimate", config: TrainConfig, kind: str, workers: int
) -> dict[str, str]:
    """What a few steps on this machine told."""
    rule = (
        "1.2 × pairs / 256"
        if config.learning_rate is None
        else f"set by the preset for {config.optimizer}"
    )
    of = "of the GPU" if kind == "cuda" else "with all libraries, without workers"
    return {
        "learning rate": f"{plan.peak_rate:g} ({rule}), warm-up {plan.warmup_steps} "
        f"steps, cosine to {config.final_share:g} of it",
        "memory a process": f"{plan.memory_bytes / 2**30:.2f} GiB {of}",
        "time": f"{_duration(plan.seconds(workers))}: a step {plan.step_seconds:.3g} "
        f"s, its views {plan.render_seconds:.3g} s of one worker",
        "measured": f"steps of {plan.measured_pairs} of {plan.share} pairs; "
        f"{UNCERTAINTY}",
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@commands.command(epilog=PACK_EXAMPLES)
def pack(
    images: Annotated[str, typer.Argument(help="Folder, zip or tar.")],
    out: Annotated[Path, typer.Argument(help="Folder to be made.")],
    short_edge: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Resize larger images to this short edge. It changes what random "
            "crops show, and is recorded. \\[default: keep them]",
        ),
    ] = None,
) -> None:
    """Decode images once, into a file that training maps into memory."""
    from ce_align.data.scenes import find_images
    from ce_align.trainer.data import pack as pack_images

    with progress_bars() as progress:
        pack_images(find_images(images), out, short_edge=short_edge, progress=progress)
    message(f"packed into {out}: ce-align train --images {out}")
