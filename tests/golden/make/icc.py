"""Golden values of ICC(3,1). Run once where pingouin is: python tests/golden/make/icc.py tests/golden/icc.json

pingouin 0.7.0 on Python 3.11; its ICC(C,1) is case 3 of Shrout and Fleiss (1979), single measurement. The first set is
their example, the others are drawn here.
"""

import json
import sys

import numpy as np
import pandas as pd
import pingouin

rng = np.random.Generator(np.random.PCG64(7))
sets = [np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)]
for n, k, noise in ((12, 2, 0.3), (25, 5, 0.8), (40, 3, 3.0), (8, 6, 0.05)):
    subjects = rng.normal(100, 1, (n, 1))
    sets.append((subjects + rng.normal(0, 2, (1, k)) + noise * rng.normal(size=(n, k))).round(6))
made = []
pingouin.options.update({"round": None, "round.column.CI95": None})
for values in sets:
    n, k = values.shape
    long = pd.DataFrame(
        {"subject": np.repeat(np.arange(n), k), "rater": np.tile(np.arange(k), n), "value": values.ravel()}
    )
    table = pingouin.intraclass_corr(long, "subject", "rater", "value").set_index("Type")
    row = table.loc["ICC(C,1)"]
    lower, upper = map(float, row["CI95"])
    made.append({"values": values.tolist(), "icc": float(row["ICC"]), "lower": lower, "upper": upper})
with open(sys.argv[1], "w") as file:
    json.dump(made, file)
