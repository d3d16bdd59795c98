"""Correlation of every measure with predictivity across networks: Table 1.

It takes the rows of ``benchmarks/it_predictivity.py``, ``analyses/variability.py`` and
``analyses/decoding.py``; one false discovery rate covers all measures and recordings.
"""

from ce_align.stages.correlate import CorrelateConfig

RECIPE = [
    CorrelateConfig(
        recordings=(
            *("majajhong2015", "sanghavi2020"),
            *("sanghavijozwik2020", "sanghavimurty2020"),
        )
    )
]
