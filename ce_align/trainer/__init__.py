"""Training of contrastive-equivariant networks: losses, networks, optimiser, pairs.

Importing this package is cheap; its modules import torch.
"""
