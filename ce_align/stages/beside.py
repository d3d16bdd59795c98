"""What scores are shown beside: untrained networks, references, other animals."""

from collections.abc import Callable, Iterable, Sequence

from ce_align.config import COMMITTED
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.names import BRAIN, network_behind, with_nulls
from ce_align.stages.scores import ScoreConfig

__all__ = ["with_others"]


def with_others(
    configs: Iterable[ScoreConfig],
    nulls: int,
    brain: bool,
    load: Callable[[str], Recording],
) -> list[ScoreConfig]:
    """Scores, and those that say what they are worth.

    Parameters
    ----------
    configs : the scores that are asked for
    nulls : untrained networks of each architecture; with any, the references, too
    brain : whether each animal is predicted from the others
    load : gives recordings by name

    Raises
    ------
    ConfigError
        If there is no other animal, or units are predicted.
    """
    ours = list(configs)
    models = [config.model for config in ours]
    if nulls:
        found = dict.fromkeys(ours)
        for name in with_nulls(models, nulls):
            behind = network_behind(name)
            for config in ours:
                if name not in models and behind in (None, config.model):
                    # References have layers of their own.
                    own = {"model": name, "label": None}
                    own |= {} if behind else {"layer": COMMITTED}
                    found[config.model_copy(update=own)] = None
        ours = list(found)
    return [*ours, *_of_animals(ours, load)] if brain else ours


def _of_animals(
    configs: Sequence[ScoreConfig], load: Callable[[str], Recording]
) -> list[ScoreConfig]:
    """Each animal of the recordings, predicted from the others."""
    found: dict[ScoreConfig, None] = {}
    for config in configs:
        if config.regression == "reverse_pls":
            raise ConfigError("--brain predicts neuroids; leave out reverse_pls")
        recording = load(config.recording)
        if len(recording.animals) < 2:
            raise ConfigError(
                f"{config.recording} names fewer than two animals, so that none is "
                "predicted from others; leave out --brain"
            )
        for animal in recording.animals if config.animal is None else [config.animal]:
            for region in recording.regions if not config.region else [config.region]:
                own = {
                    "model": f"{BRAIN}{config.recording}:{animal}",
                    "label": None,
                    "layer": region,
                    "region": region if len(recording.regions) > 1 else None,
                    "animal": animal,
                }
                found[config.model_copy(update=own)] = None
    return list(found)
