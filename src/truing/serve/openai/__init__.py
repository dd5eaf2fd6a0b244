"""The OpenAI-compatible server: chat completions, moderations and checks, with rails or without."""
