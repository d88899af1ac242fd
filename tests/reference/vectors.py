"""Golden vectors: made by `make_vectors.py`, checked by hand in `test_reference_vectors.py`."""

from typing import Any

VECTOR: dict[str, Any] = {
    "image": [[1, 2], [3, 4]],
    "weight": [[1, -2], [3, 4]],
    "padding": (0, 1, 0, 1),
    "accumulator": [[22, 14], [-5, 4]],
    "rounds": [
        {
            "modulus": 101,
            "probe": [[10, 20], [30, 40]],
            "probe_image": [[10, 0], [60, 80]],
            "claim_dot": 5,
            "input_dot": 5,
        },
        {
            "modulus": 2251799813685119,
            "probe": [[10, 20], [30, 40]],
            "probe_image": [[10, 0], [60, 80]],
            "claim_dot": 510,
            "input_dot": 510,
        },
        {
            "modulus": 2251799813685119,
            "probe": [[2251799813685118, 1], [0, 1125899906842624]],
            "probe_image": [[2251799813685118, 3], [2251799813685116, 1125899906842623]],
            "claim_dot": 250,
            "input_dot": 250,
        },
    ],
    "mask": [[2147483647, -2147483648], [-1, 5]],
    "blinded": [[-2147483648, -2147483646], [2, 9]],
    "answer": [[-2147483610, -2147483619], [-16, 9]],
    "mask_image": [[-2147483632, -2147483633], [-11, 5]],
    "unblinded": [[22, 14], [-5, 4]],
}
