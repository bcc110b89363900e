"""Time and memory of robust pooling: forward and backward on one thread, beside the reference's published figures.

128 channels, one item, float32, alpha 1, a tenth of the points ten times as far out. Medians in milliseconds, and the
peak of the memory that a forward and a backward pass allocate beside the input, over the size of the input. The
reference (ddn, commit a20a31f) was measured on another machine: compare orders of magnitude, not digits. Half a minute.
"""

import tracemalloc  # noqa: F401 - see `peak`

CHANNELS = 128
REFERENCE = {
    "quadratic": {7: "0.29 / 0.06", 112: "19 / 2.9"},
    "pseudo-huber": {7: "1.9 / 0.16", 112: "76 / 16"},
    "huber": {7: "2.6 / 0.16", 112: "181 / 20"},
    "welsch": {7: "6.6 / 0.22", 112: "173 / 19"},
    "truncated-quadratic": {7: "17 / 0.18", 112: "470 / 18"},
    "geman-mcclure": {},
    "barron": {},
}
