"""Networks: the published ones and anyone's, their safe loading and their features."""
