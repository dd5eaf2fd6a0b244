"""The weights of `moderation:research`, which learned from data for non-commercial use: for
research only. `truing` finds them by this package's name; there is no code here.
"""
