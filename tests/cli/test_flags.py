"""A field of a configuration is an option of its command."""

from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from typer.main import get_command
from typer.testing import CliRunner

from ce_align.cli.app import COMMANDS, app
from ce_align.cli.flags import Asked, flags
from ce_align.config import StageConfig, option_of
from ce_align.errors import ConfigError, explained
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.stages.compare import CompareConfig
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.running import Outcome
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import SimilarityConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.stages.unique import UniqueConfig
from ce_align.trainer.presets import TrainConfig

#: Commands of configurations.
CONFIGS = {
    "score": ScoreConfig,
    "analyze": AnalysisConfig,
    "correlate": CorrelateConfig,
    "compare": CompareConfig,
    "overlap": OverlapConfig,
    "similarity": SimilarityConfig,
    "transfer": TransferConfig,
    "unique": UniqueConfig,
    "train": TrainConfig,
    "figures": FigureConfig,
    "tables": TableConfig,
}


class PlantedConfig(StageConfig):
    """One field of each kind."""

    stage: ClassVar = "planted"

    layer: str = Field(default="last", description="Where [somewhere].")
    images: str
    kind: Literal["one", "two"] = Field(default="one", description="Which.")
    number: PositiveInt | None = Field(default=None, description="How many.")
    share: float = Field(default=0.5, ge=0, le=1, description="Of all.")
    rate: PositiveFloat = 1.0
    probe: bool = True
    fresh: bool = False
    columns: Literal[1, 2] = 2
    parts: tuple[str, ...] = ()
    pair: tuple[str, str] = ("a", "b")
    options: dict[str, Any] = Field(default_factory=dict)
    seed: NonNegativeInt = 0


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Run a command of the planted configuration: (result, configurations)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, **defaults):
        found = []

        @flags(**defaults)
        def command(
            asked: Asked[PlantedConfig],
            extra: Annotated[bool, typer.Option("--extra")] = False,
        ) -> None:
            """Planted."""
            found.extend(asked.configs())

        app = typer.Typer()
        app.command()(command)
        return CliRunner().invoke(app, list(map(str, arguments))), found

    return run


def resolved(name):
    """A command as it is when it is used."""
    _, command, _ = get_command(app).resolve_command(None, [name])
    return command


def test_a_planted_field_is_an_option_with_its_limits_choices_and_help(planted):
    shown = planted("--help")[0].output
    for text in (
        *("--layer", "Where [somewhere]. Repeatable. [default: last]"),
        *("--images", "[required]", "--kind", "one|two", "Which. [default: one]"),
        *("--number", "x>=1", "--share", "0", "1", "[default: 0.5]"),
        *("--probe", "--no-probe", "--fresh", "--columns", "1|2", "--extra"),
    ):
        assert text in shown
    assert "--no-fresh" not in shown
    assert "--pair" not in shown
    assert "--options" not in shown


def test_options_that_are_left_out_leave_the_settings_their_defaults(planted):
    result, configs = planted("--images", "a")
    assert result.exit_code == 0, result.output
    assert configs == [PlantedConfig(images="a")]


def test_every_option_reaches_its_setting_with_its_type(planted):
    given = "--images a --kind two --number 3 --share 0.25 --rate 2 --no-probe --fresh"
    more = "--columns 1 --parts x --parts y --seed 7 --layer l"
    _, configs = planted(*given.split(), *more.split())
    expected = PlantedConfig(
        images="a",
        kind="two",
        number=3,
        share=0.25,
        rate=2,
        probe=False,
        fresh=True,
        columns=1,
        parts=("x", "y"),
        seed=7,
        layer="l",
    )
    assert configs == [expected]
    assert type(configs[0].columns) is int


@pytest.mark.parametrize(
    "wrong",
    [
        "--kind three",
        "--number 0",
        "--number many",
        "--share 1.5",
        "--share -0.1",
        "--seed -1",
        "--columns 3",
        "--nothing",
    ],
)
def test_what_a_setting_refuses_its_option_refuses(planted, wrong):
    result, configs = planted("--images", "a", *wrong.split())
    assert result.exit_code == 2
    assert not configs


def test_an_open_limit_of_real_numbers_is_refused_by_the_setting(planted):
    result, _ = planted("--images", "a", "--rate", "0")
    found = str(explained(result.exception))
    assert found == "rate: Input should be greater than 0, found 0.0"


def test_several_values_of_a_swept_field_are_several_configurations(planted):
    _, configs = planted("--images", "a", "--layer", "x", "--layer", "y")
    assert [config.layer for config in configs] == ["x", "y"]


def test_what_is_required_is_asked_for_by_its_option(planted):
    result, _ = planted()
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("--images is missing")


def test_a_default_of_the_command_stands_below_files_and_options(planted, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("images: of the file\nseed: 3\n")
    _, (default,) = planted(images="of the command")
    _, (of_file,) = planted("--config", file, images="of the command")
    _, (of_option,) = planted("--config", file, "--images", "of the option")
    assert default.images == "of the command"
    assert (of_file.images, of_file.seed) == ("of the file", 3)
    assert (of_option.images, of_option.seed) == ("of the option", 3)


def test_a_file_may_set_what_has_no_option_and_sweep(planted, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "images: a\nlayer: [x, y]\npair: [c, d]\noptions: {temperature: 1e-1}\n"
    )
    result, configs = planted("--config", file)
    assert [config.layer for config in configs] == ["x", "y"], result.exception
    assert configs[0].pair == ("c", "d")
    assert configs[0].options == {"temperature": 0.1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("imagse: a", "a.yaml: there is no setting 'imagse'; nearest: images"),
        ("seed: 1\nseed: 2", "a.yaml: expected YAML, found in line 2: 'seed' stands"),
        ("- seed", "a.yaml: expected a mapping such as 'seed: 1', found a list"),
        ("", "a.yaml: expected a mapping such as 'seed: 1', found a NoneType"),
        ("seed: [1", "a.yaml: expected YAML, found in line"),
        ("images: a\nseed: many", "a.yaml: seed: Input should be a valid integer"),
        ("images: a\nseed: 1.5", "a.yaml: seed: Input should be a valid integer"),
        ("images: a\nprobe: maybe", "a.yaml: probe: Input should be a valid boolean"),
        ("seed: !!python/object/apply:os.getcwd []", "a.yaml: expected YAML, found"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(planted, tmp_path, text, told):
    (tmp_path / "a.yaml").write_text(text)
    result, configs = planted("--config", "a.yaml")
    found = str(explained(result.exception))
    assert told in found
    assert "\n" not in found
    assert explained(result.exception).exit_status == 2
    assert not configs


def test_an_option_is_not_told_as_a_mistake_of_the_file(planted, tmp_path):
    (tmp_path / "a.yaml").write_text("images: a\nrate: 1.0\n")
    result, _ = planted("--config", "a.yaml", "--rate", "-1")
    assert str(explained(result.exception)).startswith("rate: ")


def test_a_file_that_is_not_there_is_told_in_one_line(planted):
    result, _ = planted("--config", "nowhere.yaml")
    assert str(result.exception).startswith("nowhere.yaml cannot be read")


@pytest.mark.parametrize(("name", "config"), CONFIGS.items())
def test_every_field_is_an_option_with_help(name, config):
    options = {word: option for option in resolved(name).params for word in option.opts}
    unset = [
        field
        for field in config.model_fields
        if option_of(config, field) not in options
    ]
    # What one word cannot say.
    assert unset == (["families", "options"] if config is TrainConfig else [])
    assert ("--set" in options) == bool(unset)
    assert all(option.help for option in options.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_by_the_first_line_of_its_help(name):
    command = resolved(name)
    assert command.name == name
    assert command.help.splitlines()[0] == COMMANDS[name][1]


@pytest.mark.slow
def test_one_word_means_one_thing_in_every_command():
    meanings = {}
    for name in COMMANDS:
        for option in resolved(name).params:
            kind = option.type.name if hasattr(option, "type") else None
            for word in ("--figure", "--results", "--json", "--force", "--device"):
                if word in option.opts:
                    meanings.setdefault(word, set()).add((option.help, kind))
    assert meanings.keys() == {
        *("--figure", "--results", "--json", "--force", "--device")
    }


def asked(kind, **given):
    return [(c.labels, c.layer) for c in Asked(kind, given, {}).configs()]


def test_a_label_goes_with_each_network_in_order_whatever_else_is_swept():
    names = {"model": ["ce_mmcr_l0.[12]", "pixels"], "recording": "simulated"}
    found = asked(
        ScoreConfig, **names, layer=["x", "y"], label=["first", "second", "third"]
    )
    labels = (
        {"ce_mmcr_l0.1": "first"},
        {"ce_mmcr_l0.2": "second"},
        {"pixels": "third"},
    )
    assert found == [(label, layer) for label in labels for layer in "xy"]
    with pytest.raises(ConfigError, match="found 1 for 3, ce_mmcr"):
        asked(ScoreConfig, **names, label="only")


def test_two_labels_are_of_the_two_networks_of_an_overlap(monkeypatch):
    kept = []
    monkeypatch.setattr(
        "ce_align.cli.flags.Session.run",
        lambda self, configs: kept.extend(configs) or Outcome(),
    )
    words = "overlap -m pixels -m gabor --label p --label g -r simulated"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert kept[0].labels == {"pixels": "p", "gabor": "g"}
