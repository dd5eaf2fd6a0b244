"""Renders the data of runs as HTML, Markdown and JSON: blocks, `charts/`, `sections/`, and the run
viewer (`view/`).
"""
