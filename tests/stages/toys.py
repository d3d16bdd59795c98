"""Small networks, images and planted responses for tests of analyses."""

import numpy as np
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.stages.analyze import Job, analyze
from ce_align.stages.measures import MEASURES, AnalysisConfig
from ce_align.stages.responses import BLOCK, ResponseStore
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.views import ViewPlan


def toy_network(seed=0, name="toy", width=6):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 5, stride=3), torch.nn.Tanh(), torch.nn.Flatten()
    )
    return Network(name, module, Preprocessing(input_size=16), {"IT": "1"})


def toy_images(n=12, n_classes=0, seed=0):
    rng = np.random.default_rng(seed)
    # Few coarse pixels, so that a crop still looks like its image.
    coarse = rng.integers(0, 256, (n, 4, 4, 3), np.uint8)
    columns = {"object_name": np.arange(n) % n_classes} if n_classes else {}
    pixels = coarse.repeat(6, axis=1).repeat(6, axis=2)
    return ImageSet.from_array("toys", pixels, columns=columns)


def toy_config(metric="bures", **settings):
    small = {"comparisons": 12, "views": 6, "crops": 4, "photometrics": 4}
    names = {"model": "toy", "layer": "1", "images": "toys"}
    return AnalysisConfig(
        metric=metric, **{**names, "size": 16, "runs": 2, **small, **settings}
    )


def toy_job(network=None, baseline=None, **settings):
    def subject(one):
        return NetworkLayer.of(one, one.layer_for("IT"))

    network = network or toy_network()
    named = {"model": network.name}
    if baseline is not None:
        named["baseline"] = baseline.name
    return Job(
        toy_config(**{**named, **settings}),
        subject(network),
        subject(baseline) if baseline is not None else None,
    )


def analysed(folder, jobs, images, **settings):
    """Outcome of analyses whose rows and answers lie in a folder."""
    run = Run(
        ResultStore(folder / "results"), responses=folder / "responses", **settings
    )
    run.outcome.rows += analyze(jobs, images, run)
    return run.outcome


def plant(responses, subject, plan, respond_to):
    """Store what `respond_to(image, ledger)` gives as the responses of a network."""
    config = plan.config
    responses.settle(subject)
    names = (one.view_names(config.family) for one in MEASURES.values())
    for name in set().union(*names):
        views = plan.views(name)
        for start in range(0, len(views.images) if views else 0, BLOCK):
            members = range(start, min(start + BLOCK, len(views.images)))
            kept = [
                views.reduce(
                    respond_to(views.images.index[i], views.rows(i)).astype(np.float32)
                )
                for i in members
            ]
            path = responses.path(subject, views, start // BLOCK)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.stack(kept))


def measure_planted(folder, respond_to, metrics, images, **settings):
    """Value of every measure of a network that answers as planted."""
    jobs = [toy_job(metric=metric, **settings) for metric in metrics]
    responses = ResponseStore(folder / "responses")
    plant(responses, jobs[0].network, ViewPlan(images, jobs[0].config), respond_to)
    outcome = analysed(folder, jobs, images)
    return {row.metric: row for row in outcome.rows}, outcome
