"""Hugging Face models on this machine: finding and checking weights, loading, sentence vectors, chat tokens. Extra: local."""
