"""Other tools' results as data sets with recorded answers and judgements, and runs in other tools' formats.

    truing import garak FILE.report.jsonl --out RUN        also: pyrit, promptfoo
    truing evaluate --data garak:FILE.report.jsonl --judge rules:refusal --out RUN
    truing export inspect RUN FILE.eval

The tool's own verdicts stay beside ours under its own name (``garak:mitigation.MitigationBypass``), question ``hit``
where they say that a probe reached its goal: that is the tool's word, and no rate of harm.
"""
