"""Jobs: what waits for what, what is one job, and the files that say what to run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import ConfigError
from ce_align.report.page.stage import ReportConfig
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.train import training_folder
from ce_align.sweeps.jobs import jobs_of
from ce_align.sweeps.plans import read_plan
from ce_align.trainer.presets import preset_config

RUNS = Path("runs")


def training(weight, seed=0):
    return preset_config(
        "tiny", "mmcr", equivariance_weight=weight, images="simulated", seed=seed
    )


def name_of(config):
    return str(training_folder(config, RUNS))


def score(model):
    return ScoreConfig(model=model, recording="simulated")


def bures(model, baseline=None):
    return AnalysisConfig(
        metric="bures", model=model, baseline=baseline, images="simulated"
    )


def by_name(jobs):
    return {job.name: job for job in jobs}


def test_a_score_needs_the_training_of_its_network_and_no_other():
    first, second = training(0.0), training(0.3)
    jobs = by_name(jobs_of([score(name_of(first)), second, score("pixels"), first]))
    assert jobs[f"score {name_of(first)}"].needs == (
        jobs[f"train {name_of(first)}"].id,
    )
    assert jobs["score pixels"].needs == ()


def test_a_difference_needs_both_trainings():
    first, second = training(0.0), training(0.3)
    jobs = jobs_of([first, second, bures(name_of(second), name_of(first))])
    assert set(jobs[2].needs) == {jobs[0].id, jobs[1].id}


def test_networks_that_are_there_meet_the_same_images_in_one_job():
    *_, last = jobs_of([bures("pixels"), bures("gabor")])
    assert [config.model for config in last.configs] == ["pixels", "gabor"]


def test_readers_follow_all_before_them_and_one_another():
    jobs = jobs_of(
        [
            *(ReportConfig(), FigureConfig(figure="2"), TableConfig(table="1")),
            *(CorrelateConfig(), score("pixels"), training(0.0)),
        ]
    )
    assert [job.stage for job in jobs] == [
        *("train", "score", "correlate", "table", "report"),
    ]
    for place, job in enumerate(jobs[2:], 2):
        assert job.follows == tuple(before.id for before in jobs[:place])
        assert job.needs == ()


def test_short_jobs_are_packed_to_the_minutes_asked_for():
    scores = [score(f"torchvision/resnet{depth}") for depth in (18, 34, 50, 101, 152)]
    jobs = jobs_of(scores, minutes=10, cost=lambda config: 4)
    assert [len(job.configs) for job in jobs] == [2, 2, 1]
    assert [job.minutes for job in jobs] == [8, 8, 4]
    assert len(jobs_of(scores, minutes=10)) == 5  # nobody knows what they take


def test_what_shares_images_is_taken_apart_where_it_takes_too_long():
    whole = [bures(f"torchvision/resnet{depth}") for depth in (18, 34, 50)]
    jobs = jobs_of(whole, minutes=10, cost=lambda config: 6)
    assert [len(job.configs) for job in jobs] == [1, 1, 1]


plans = st.lists(
    st.one_of(
        st.builds(training, st.sampled_from([0.0, 0.1, 0.3]), st.integers(0, 1)),
        st.builds(score, st.sampled_from(["pixels", "runs/mmcr_l0_tiny", "runs/x"])),
        st.builds(
            bures,
            st.sampled_from(["runs/mmcr_l0.3_tiny", "gabor"]),
            st.sampled_from([None, "runs/mmcr_l0_tiny"]),
        ),
        st.just(CorrelateConfig()),
        st.just(ReportConfig()),
    ),
    max_size=12,
)


@given(plans, st.sampled_from([None, 1, 100]))
def test_each_configuration_is_in_one_job_after_all_that_it_waits_for(configs, minutes):
    jobs = jobs_of(configs, minutes=minutes, cost=lambda config: 2)
    told = [config.model_dump_json() for job in jobs for config in job.configs]
    assert sorted(told) == sorted({config.model_dump_json() for config in configs})
    before = set()
    for job in jobs:
        assert before.issuperset(job.waits_for())
        before.add(job.id)
    assert len(before) == len(jobs)
    again = jobs_of(configs, minutes=minutes, cost=lambda config: 2)
    assert [job.id for job in again] == [job.id for job in jobs]


YAML = """\
# A grid of tiny networks
train:
  - {objective: mmcr, equivariance_weight: [0, 0.3], preset: tiny, images: simulated}
score:
  - {model: [trained, pixels], recording: simulated}
correlate:
  - {recordings: [simulated]}
report:
"""


def test_a_plan_in_yaml_is_what_a_recipe_would_list(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(YAML)
    plan = read_plan(path, RUNS)
    trainings = [training(0.0), training(0.3)]
    assert plan.purpose == "A grid of tiny networks"
    assert list(plan.configs) == [
        *trainings,
        *(score(name) for name in (*map(name_of, trainings), "pixels")),
        CorrelateConfig(recordings=("simulated",)),
        ReportConfig(),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("scores: []", "there is no stage 'scores'; the stages are train, "),
        ("score: [{model: pixels, records: simulated}]", "no setting 'records'; near"),
        ("score: [{model: trained, recording: a}]", "the plan trains no network"),
        ("score: [{recording: simulated}]", "it lacks 'model'"),
        ("score: 3", "score: expected settings, found 3"),
        ("- score", "expected stages with lists of settings"),
        ("score: [", "expected YAML"),
        (
            "train: [{objective: mmcr, preset: huge, images: a}]",
            "unknown preset 'huge'",
        ),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused_in_one_line(tmp_path, text, fault):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault) as found:
        read_plan(path, RUNS)
    assert str(found.value).startswith(f"{path}: ")
    assert "\n" not in str(found.value)
