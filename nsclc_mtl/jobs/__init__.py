"""Calls that are handed over as jobs of their own by submitit, and what became of them.

A job notes its end in a small JSON file, and that is all that is read of it. The pickle that submitit writes for the
way into the job holds plain types, paths and functions by name; it is removed when the job has done its work, and
none is ever read on this side. Files of a job lie in one folder under its key: `<key>.job.json` (where it was handed
to), `<key>.end.json` (its end), `<key>.lease` (while it works), and submitit's logs under the job's number.
"""

from .call import Call, command
from .handing import Ticket, hand_over, handed, sound
from .waiting import End, at_work, work_through

__all__ = ["Call", "End", "Ticket", "at_work", "command", "hand_over", "handed", "sound", "work_through"]
