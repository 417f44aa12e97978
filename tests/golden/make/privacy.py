"""Golden values of differential privacy. Run once where dp-accounting is: python tests/golden/make/privacy.py FILE.json

dp-accounting 0.6.0 on Python 3.11, its accountants of Rényi divergences (`rdp`) and of privacy loss distributions
(`pld`, tighter), for Poisson samples and neighbours that differ in one patient added or removed. The orders are ours;
those at which its series does not converge (the lowest ones, with q above .1 or so) it leaves out itself, so that its
epsilon is too large where the best order is one of these: for such cases the test has an integral of its own.
"""

import json
import sys

from dp_accounting import dp_event, privacy_accountant
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

CASES = [  # noise, q, steps, delta
    (1.0, 32 / 300, 60, 1e-5),
    (1.0, 32 / 100, 40, 1e-3),
    (0.7, 0.05, 200, 1e-4),
    (3.0, 0.5, 60, 1e-5),
    (4.0, 1.0, 30, 1e-4),
    (1.3, 0.2, 1, 1e-6),
    (8.0, 0.1, 50, 1e-5),
    (30.0, 0.02, 10, 1e-3),
    (1.1, 256 / 60000, 14062, 1e-5),
]
ORDERS = [*(1 + x / 20 for x in range(1, 20)), *(2 + x / 10 for x in range(90)), *range(11, 64)]
ORDERS += [72, 80, 96, 112, 128, 160, 192, 256, 512, 1024]
NEIGHBOURS = privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE

made = []
for noise, q, steps, delta in CASES:
    event = dp_event.SelfComposedDpEvent(dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(noise)), steps)
    row = {"noise": noise, "q": q, "steps": steps, "delta": delta}
    for name, accountant in (("rdp", RdpAccountant(ORDERS, NEIGHBOURS)), ("pld", PLDAccountant(NEIGHBOURS))):
        row[name] = float(accountant.compose(event).get_epsilon(delta))
    made.append(row)
with open(sys.argv[1], "w") as file:
    json.dump(made, file, indent=1)
    file.write("\n")
