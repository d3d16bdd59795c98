"""Animals in the place of a network: what the brain tells of another brain."""

from collections.abc import Callable

from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.models.given import FeatureArray
from ce_align.names import BRAIN

__all__ = ["load_brain"]


def load_brain(name: str, load: Callable[[str], Recording]) -> FeatureArray:
    """Responses of all animals but one, as features of the stimuli.

    Parameters
    ----------
    name : ``RECORDING:ANIMAL``, of the animal that is left out
    load : gives the recording by its name

    Returns
    -------
    A layer for each region, of averages over repetitions (n_stimuli, n_neuroids)

    Raises
    ------
    ConfigError
        If there is no such recording or animal.
    DataError
        If the recording is of one animal.
    """
    source, _, animal = name.rpartition(":")
    if not source:
        raise ConfigError(
            f"other animals are named {BRAIN}RECORDING:ANIMAL, found {BRAIN}{name}"
        )
    recording = load(source)
    if animal not in recording.animals:
        raise ConfigError(
            f"{source} has no animal {animal!r}; it has "
            f"{', '.join(recording.animals) or 'no names of animals'}"
        )
    others = [other for other in recording.animals if other != animal]
    if not others:
        raise DataError(f"{source} is of one animal, which no other one predicts")
    ids = [
        neuroid
        for neuroid, own in zip(
            recording.neuroid_ids, recording.neuroids["animal"], strict=True
        )
        if str(own) != animal
    ]
    rest = recording.select(neuroids=ids)
    layers = {region: rest.select(region=region).averaged() for region in rest.regions}
    return FeatureArray(f"{BRAIN}{name}", layers, ids=recording.images.ids)
