"""What a clean process does with plugins: load them by Brain-Score, and look.

It runs as a script, apart from this package, with an overlay of Brain-Score first on
its path. Its one argument is a JSON file; it appends one line of JSON for each plugin
to the file ``results`` beside it.
"""

import json
import sys
import traceback
import urllib.error
from pathlib import Path
from typing import Any

__all__: list[str] = []

#: Images on which a repetition must give the same activations.
N_REPEATED = 2


def main(job_file: str) -> None:
    """Probe the plugins of a job, one after the other."""
    import numpy as np

    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    folder = Path(job_file).parent
    with (folder / "results").open("a", encoding="utf-8") as results:
        for number, identifier in enumerate(job["identifiers"]):
            found: dict[str, Any] = {"identifier": identifier}
            try:
                facts, arrays = probe(identifier, job["images"], job["region"])
                found |= facts
                np.savez(folder / f"{number}.npz", **arrays)
            except Exception as error:  # whatever a plugin does is reported
                traceback.print_exc()
                found |= explained(error)
            results.write(json.dumps(found) + "\n")
            results.flush()


def explained(error: BaseException) -> dict[str, Any]:
    """A failure in one line, and whether it is only that nothing can be reached."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    unreachable = any(
        isinstance(link, urllib.error.URLError | ConnectionError | TimeoutError)
        and not isinstance(link, urllib.error.HTTPError)
        for link in chain
    )
    first = str(error).partition("\n")[0]
    return {"error": f"{type(error).__name__}: {first}", "unreachable": unreachable}


def probe(
    identifier: str, paths: list[str], region: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts about one plugin, and its activations for images."""
    import numpy as np
    from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
    from brainscore_vision import load_model

    model = load_model(identifier)
    layer_map = dict(getattr(model.layer_model, "region_layer_map", {}))
    wrapper = model.activations_model
    layers = list(dict.fromkeys(map(str, layer_map.values())))
    repeated = paths[:N_REPEATED]
    first, second = (wrapper(repeated, layers=layers).values for _ in range(2))
    stimuli = StimulusSet({"stimulus_id": [Path(path).stem for path in paths]})
    stimuli.identifier = "ce-align-probe"
    stimuli.stimulus_paths = {Path(path).stem: path for path in paths}
    recorded = region if region in layer_map else next(iter(layer_map))
    model.start_recording(recorded, time_bins=[(70, 170)])
    activations = model.look_at(stimuli).transpose("presentation", ...)
    order = {stimulus: row for row, stimulus in enumerate(stimuli["stimulus_id"])}
    rows = [order[stimulus] for stimulus in activations["stimulus_id"].values]
    features = np.empty((len(rows), activations.values[0].size), dtype=np.float32)
    features[rows] = activations.values.reshape(len(rows), -1)
    prepared = np.asarray(wrapper._extractor.preprocess(repeated[:1]))
    facts = {
        "answers_to": str(model.identifier),
        "layers": {name: str(layer) for name, layer in layer_map.items()},
        "region": recorded,
        "degrees": float(model.visual_degrees()),
        "image_size": getattr(wrapper, "image_size", None),
        "deterministic": bool(np.array_equal(first, second)),
        "finite": bool(np.isfinite(features).all()),
    }
    return facts, {"features": features, "prepared": prepared}


if __name__ == "__main__":
    main(sys.argv[1])
