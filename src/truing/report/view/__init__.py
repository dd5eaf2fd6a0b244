"""The viewer: runs as one page that is opened from disk; no server, no script from elsewhere, text
only if asked.
"""
