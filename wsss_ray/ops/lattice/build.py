"""Build the permutohedral lattice of a set of points, with the fastest implementation for their device."""

from __future__ import annotations

from torch import Tensor

from wsss_ray.ops.lattice.base import Lattice


def build_lattice(features_ND: Tensor) -> Lattice:
    """Build the lattice of N points: compiled loops on a CPU, torch elsewhere.

    Args:
        features_ND: float32 or float64, each dimension already divided by its standard deviation. With float32 the lattice
            equals that of densecrf.

    Returns:
        The lattice, on the device of the features.

    Raises:
        ValueError: if there is no point or no dimension, if the points lie too many standard deviations apart for a 62-bit key,
            or if a value is not finite.

    Example:
        >>> lattice = build_lattice(bilateral_features(image_HWC, sxy=80.0, srgb=13.0))
        >>> filtered_NC = lattice.filter(values_NC)
    """
    if features_ND.device.type == "cpu":
        from wsss_ray.ops.lattice.compiled import CompiledLattice

        return CompiledLattice.build(features_ND)
    from wsss_ray.ops.lattice.on_torch import TorchLattice

    return TorchLattice.build(features_ND)
