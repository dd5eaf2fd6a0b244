"""Automated red teaming: attacks that people would try, generic and mild, each naming its paper.

An attack turns a sample into another whose `parent` is the first, so that its lift over the plain prompt is paired.
Templates are ours and carry no payload; what they wrap is the sample's own text. No attack runs on prompts about
minors.
"""
