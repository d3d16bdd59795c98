"""Compiled kernels of the CPU path, with Pillow's arithmetic, rounding included.

Fixed-point bicubic resampling, truncating blends, 8-bit hue, three extended box blurs:
a view made here and one made by a Pillow pipeline are equal bit for bit, as long as
Pillow resamples columns before rows. The kernels are faster because pixels lie as
(row, channel, column), so that every loop runs over neighbours in memory and compiles
to vector instructions. The interpreter lock is released.

No kernel calls one of another file: compiled code is kept between sessions and is
renewed only when its own file changes.
"""
