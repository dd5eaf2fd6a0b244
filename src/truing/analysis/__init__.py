"""From verdicts to figures: `summarise` one run, `compare` two, make judge cards, draw labels.

`read_verdict_table` turns a run folder into compact columns; everything else counts over these.
Functions take run folders and return structs of numbers, which reports and gates read.
"""
