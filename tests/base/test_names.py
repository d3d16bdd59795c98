"""One network, one recording, one spelling of its name."""

from importlib import import_module

import pytest

from ce_align.config import PATHS, StageConfig
from ce_align.names import NetworkName, plain_path, split_name, without_path
from ce_align.runner import STAGES, register_brainscore
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.transfer import TransferConfig

#: Settings that are words: neither networks, data nor files are called by them.
WORDS = {
    *(
        "network_labels",
        "layers",
        "label",
        "label_a",
        "label_b",
        "submodule",
        "metric",
        "layer",
        "layer_a",
    ),
    *("layer_b", "stratify", "region", "animal", "time", "objective", "backbone"),
    *("families", "figure", "table", "title", "beside_layers"),
}
#: Values of settings that must be given.
REQUIRED = {"equivariance_weight": 0.3, "objective": "mmcr", "metric": "bures"}
REQUIRED |= {"figure": "2", "table": "1", "models": ("pixels", "gabor")}
REQUIRED |= {"beside": ("gabor", "v1_like")}

SPELLINGS = [
    *("./data/my.nc", "data//my.nc", "data/./my.nc", "other/../data/my.nc"),
    *("data/my.nc/", "{here}/data/my.nc", "~/work/data/my.nc", "../work/data/my.nc"),
    *("link.nc", "{here}/linked/my.nc"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "my.nc").touch()
    (folder / "link.nc").symlink_to("data/my.nc")
    (folder / "linked").symlink_to("data")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def configurations(kind=StageConfig):
    """Every type of configuration that rows or figures are made of."""
    for module in STAGES.values():
        import_module(module)
    for one in kind.__subclasses__():
        own = one.__module__.startswith("ce_align.")
        if own and vars(one).get("stage") in STAGES:
            yield one
        yield from configurations(one)


def is_text(field):
    return "str" in str(field.annotation) and "Literal" not in str(field.annotation)


def named(kind):
    """Settings of a configuration that may be paths."""
    return [n for n, f in kind.model_fields.items() if is_text(f) and n in PATHS]


def config_of(kind, field, path):
    """A configuration of which one setting is a path, and the others are not."""
    known = {
        name: REQUIRED.get(name, "pixels")
        for name, one in kind.model_fields.items()
        if one.is_required()
    }
    if kind.stage == "similarity":
        known["metric"] = "rsa"
    several = "tuple" in str(kind.model_fields[field].annotation)
    others = known.get(field, ())[1:]
    return kind(**{**known, field: (path, *others) if several else path})


def test_every_setting_is_a_word_or_may_be_a_path():
    """A setting that is a path in one and a word in the other has two identities."""
    unknown = {
        f"{kind.__name__}.{name}"
        for kind in configurations()
        for name, field in kind.model_fields.items()
        if is_text(field) and name not in PATHS and name not in WORDS
    }
    # Nested settings of an objective are its numbers.
    assert unknown == {"TrainConfig.options"}
    assert len(list(configurations())) >= 10


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_identity_does_not_depend_on_how_a_path_is_spelled(
    spelling, here, monkeypatch
):
    cases = [(kind, name) for kind in configurations() for name in named(kind)]
    assert len(cases) >= 15
    there = {case: config_of(*case, "data/my.nc").fingerprint(c="d") for case in cases}
    path = spelling.format(here=here)
    for case, expected in there.items():
        assert config_of(*case, path).fingerprint(c="d") == expected, case
    monkeypatch.chdir("/")
    path = f"{here}/data/my.nc"
    for case, expected in there.items():
        assert config_of(*case, path).fingerprint(c="d") == expected, case


def test_what_a_path_leads_to_is_told_by_its_content_and_parts_by_their_names(here):
    def identity(name, weights="w"):
        config = ScoreConfig(model=name, recording="it")
        return config.fingerprint(weights=weights)

    (here / "nets.py").touch()
    (here / "w.pt").touch()
    names = ("data/my.nc", "nets.py:a", "nets.py:b", "w.pt:resnet50", "w.pt:@teacher")
    assert len({identity(name) for name in names}) == len(names)
    assert identity("nets.py:a") == identity(f"{here}/nets.py:a")
    assert identity("nets.py:a") != identity("nets.py:a", "other weights")
    # Names that lead nowhere have the identity that they always had.
    for name in ("pixels", "torchvision/resnet50", "runs/a"):
        assert identity(name) == identity(name).spelled


def test_a_folder_called_like_something_known_changes_no_identity(here):
    known = (
        ScoreConfig(model="pixels", recording="simulated"),
        ScoreConfig(model="ce_mmcr_l0@encoder", recording="majajhong2015"),
        AnalysisConfig(model="gabor", metric="bures", images="simulated"),
        TransferConfig(model="pixels", dataset="dtd"),
        CorrelateConfig(recordings=("simulated",)),
    )
    register_brainscore()
    before = [config.fingerprint(c="d") for config in known]
    for name in ("pixels", "ce_mmcr_l0@encoder", "ce_mmcr_l0", "simulated", "dtd"):
        (here / name).mkdir()
    (here / "majajhong2015").mkdir()
    assert [config.fingerprint(c="d") for config in known] == before


def test_paths_of_features_count_by_their_content(here):
    (here / "f.npy").touch()
    (here / "ids.csv").touch()
    assert without_path("features:f.npy:ids.csv", "network") == "features::"
    assert without_path("features:f.npy:none.csv", "network") == "features::none.csv"
    assert without_path("hf-hub:lab/net@v2", "network") == "hf-hub:lab/net@v2"


def test_a_folder_outside_of_the_current_one_has_one_name(here):
    assert plain_path("../runs/a/") == f"{here.parent}/runs/a"
    assert plain_path("~/runs/a") == f"{here.parent}/runs/a"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./nets.py:build", "nets.py:build"),
        ("{here}/runs/a/", "runs/a"),
        ("local-dir:./hub/a/", "local-dir:hub/a"),
        ("features:./f.npy:{here}/ids.csv", "features:f.npy:ids.csv"),
        ("./w.pt:resnet50@teacher", "w.pt:resnet50@teacher"),
    ],
)
def test_what_follows_a_path_is_kept(name, expected, here):
    assert plain_path(name.format(here=here)) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("pixels", "ce_mmcr_l0.1", "torchvision/resnet50:none", "simulated"),
        *("timm/vit_tiny_patch16_224.augreg_in21k", "hf-hub:lab/net@v2", "it"),
        *("brainscore/MajajHong2015.IT-pls", "https://a.org//b", "ce_*_l0.[12]"),
    ],
)
def test_what_is_no_path_stays_as_it_is(name):
    assert plain_path(name) == name


@pytest.mark.parametrize(
    "name",
    [
        NetworkName("clip.py:build", "visual", timm=True),
        NetworkName("runs/a", timm=True),
        NetworkName("w.pt:resnet50", "teacher"),
        NetworkName("hf-hub:lab/net@v2", "visual.trunk"),
        NetworkName("hf-hub:lab/net@v2"),
        NetworkName("/home/me@host/runs/a"),
    ],
)
def test_a_name_is_read_as_it_is_written(name):
    assert split_name(str(name)) == name


def test_a_part_and_its_preprocessing_are_spelled_by_settings_too():
    spelled = ScoreConfig(
        model="./clip.py:build",
        recording="it",
        submodule="visual",
        preprocessing="timm",
    )
    assert spelled == ScoreConfig(model="clip.py:build@visual+timm", recording="it")
    whole = ScoreConfig(model="hf-hub:lab/net", recording="it", submodule="visual")
    assert split_name(whole.model).part == "visual"
    with pytest.raises(ValueError, match="preprocessing"):
        ScoreConfig(model="a", recording="it", preprocessing="torchvision")
