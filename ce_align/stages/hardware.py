"""Where and how fast networks run, which does not change the numbers."""

from dataclasses import dataclass

__all__ = ["Hardware"]


@dataclass(frozen=True)
class Hardware:
    """Device and batches of every stage that reads networks.

    Attributes
    ----------
    device : ``auto``, ``cpu``, ``cuda`` or ``mps``
    batch_size : images at a time; None chooses by the device
    workers : threads that render views
    compiled : whether torch.compile prepares the network
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int = 1
    compiled: bool = False
