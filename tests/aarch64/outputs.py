"""What a bundle computes on the machine that runs this: `python outputs.py BUNDLE STORE OUT.npz`. Run on two machines, the files can be compared.

Arrays: `versions`; features and outputs of the golden windows as `PRECISION/NAME`; `ccc/PRECISION`, that of the store's validation videos under
`overlap`, as valence, arousal. One thread, so that sums do not depend on the number of cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from sage_edge.calibration.evaluation import DIMENSIONS, Variant, overlap, score, validation
from sage_edge.calibration.offline import Offline
from sage_edge.runtime.bundle import Bundle
from sage_edge.training.data.store import Store

PRECISIONS = ("int8-cpu",)


def outputs(bundle: Bundle, store: Store) -> dict[str, np.ndarray]:
    """The arrays, see above."""
    golden = bundle.golden()
    trials = validation(store)[:2]
    found = {"versions": np.array([onnxruntime.__version__, np.__version__])}
    with Offline.of(bundle, threads=1) as offline:
        for precision in PRECISIONS:
            names = ("faces", "samples", "visual_mask", "audio_mask")
            windows = [offline.window(*(golden[name][i] for name in names), precision=precision) for i in range(len(golden["faces"]))]
            found |= {f"{precision}/{name}": np.stack([window[name] for window in windows]) for name in windows[0]}
            found[f"{precision}/visual"] = offline.faces(golden["faces"][0][golden["visual_mask"][0]][:64], precision)
            found[f"{precision}/audio"] = offline.sound(golden["samples"][0], precision)
        variants = {precision: Variant.all(precision) for precision in PRECISIONS}
        for precision, predictions in overlap(offline, trials, variants, bundle.manifest.window, progress=False).items():
            row = score(predictions, trials)
            found[f"ccc/{precision}"] = np.array([row[name] for name in DIMENSIONS])
    return found


if __name__ == "__main__":
    np.savez(sys.argv[3], **outputs(Bundle.open(sys.argv[1]), Store.open(Path(sys.argv[2]))))
