"""From verdicts to figures: rates, summaries, comparisons, corrections by labels, judge cards. Numbers in, structs out."""
