"""The tables and the declaration that a new study begins with."""

from __future__ import annotations

import json
import re

# The rows are examples: they show how cells are written, and are to be replaced.
TABLES = {
    "patients.csv": (
        "patient_id,site,age,sex,smoking,stage,response,surgery_date,os_days,os_status\n"
        "EXAMPLE-1,north,61,f,former,II,yes,2020-01-31,812,dead\n"
        "EXAMPLE-2,south,70,m,never,I,,2020-03-02,1420,alive\n"
    ),
    "slides.csv": (
        "slide_id,patient_id,path\n"
        "EXAMPLE-1-A,EXAMPLE-1,slides/EXAMPLE-1-A.svs\n"
        "EXAMPLE-2-A,EXAMPLE-2,slides/EXAMPLE-2-A.svs\n"
    ),
    "scans.csv": (
        "scan_id,patient_id,modality,image,mask\n"
        "EXAMPLE-1-CT,EXAMPLE-1,CT,scans/EXAMPLE-1-CT.nii.gz,scans/EXAMPLE-1-CT-mask.nii.gz\n"
    ),
    "rna.csv": "patient_id,GENE_1,GENE_2,GENE_3\nEXAMPLE-1,5.1,0,7.25\nEXAMPLE-2,4.8,1.5,6\n",
}

_COHORT = """# @NAME@: what the tables of this study mean. Drop what you do not need; all words: docs/your-own-cohort.md
name: @NAME@
root: @ROOT@

# ids are text: 00123 stays 00123. `ids: tcga` cuts TCGA barcodes to the patient. Without a column of sites drop `site`.
patients: {file: patients.csv, id: patient_id, site: site}

# The day at which a prediction is made: inputs that are known later are refused. Dates are written 2020-01-31; for
# others set `format: '%d.%m.%Y'`. In tables without dates {event: surgery} alone.
index_date: {column: surgery_date, event: surgery}

tasks:
  survival:
    kind: survival
    endpoint: overall survival       # which events count
    time: os_days                    # from the index date; or {date: last_contact_date}
    unit: days                       # days, weeks, months or years: never guessed
    event: os_status
    events: {dead: 1, alive: 0}      # every value that occurs is named; null = not known
    # zero: half_day                 # what becomes of a time of zero: half_day or drop; without it zero is refused
  stage:
    kind: ordinal
    column: stage
    classes: [I, II, III, IV]        # lowest first
    # map: {IA: I, IB: I, unstaged: not_applicable}   # values as written -> classes; null = not known
    # applies: {column: histology, values: [adenocarcinoma]}   # to the others it does not apply: no missing label
  response:
    kind: binary
    column: response
    classes: ['no', 'yes']           # the second is the positive one; quoted, for bare they are false and true in YAML
  # ki67: {kind: regression, column: ki67, unit: '%'}   # a number

# Columns that hold an outcome, or a part of one, and are no task: no modality may use them.
never_inputs: []

# `time: before` = known by the index date; {days: COLUMN} or {date: COLUMN} = row by row; `after` = later, and refused
# unless `after_index: declared`. `optional: true` = left out where it has no data.
modalities:
  clinical:
    kind: clinical
    file: patients.csv
    time: before
    columns:
      age: {type: numeric, unit: years, min: 0, max: 120}   # values outside are refused
      sex: {type: categorical, values: [f, m]}              # others are refused; without `values` anything goes
      smoking: [never, former, current]                     # ordered, from low to high
  rna: {kind: omics, file: rna.csv, time: before}           # a row a patient, a column a gene
  wsi: {kind: bag, table: slides.csv, time: before, optional: true}             # after `mtl tile` and `mtl extract`
  ct_radiomics: {kind: radiomics, scans: ct_lung, time: before, optional: true}   # after `mtl extract`
"""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan"}  # of YAML itself


def cohort(name: str, root: str) -> str:
    """The declaration of a study whose tables are those of `TABLES`, in the folder `root`."""
    return _COHORT.replace("@NAME@", name).replace("@ROOT@", quoted(root))


def quoted(text: object) -> str:
    """A text as YAML takes it for that text.

    >>> quoted("sex"), quoted("no"), quoted("1.0"), quoted("a: b")
    ('sex', '"no"', '"1.0"', '"a: b"')
    """
    word = str(text)
    plain = _PLAIN.fullmatch(word) and word.lower() not in _WORDS
    return word if plain else json.dumps(word, ensure_ascii=False).replace("${", "\\\\${")
