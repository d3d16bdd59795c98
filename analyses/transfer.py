"""Linear evaluation on six data sets, λ = 0 against λ = 0.1: Tables 2 and 4.

Frozen features, 45 strengths chosen on validation images, five runs. The data sets are
looked for where ``ce-align transfer`` keeps them, or in ``--root``.
"""

from ce_align.data.labelled import DATASETS
from ce_align.models.catalogue import PUBLISHED
from ce_align.stages.transfer import TransferConfig

NETWORKS = [
    f"ce_{objective}_l{weight}"
    for objective in ("mmcr", "barlow", "simclr")
    for weight in ("0", "0.1")
]

RECIPE = [
    TransferConfig(
        model=name, dataset=dataset, layer=PUBLISHED[name].layers["IT"], size=224
    )
    for name in NETWORKS
    for dataset in DATASETS
]
