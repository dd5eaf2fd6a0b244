"""Published sets and own files as samples, recorded responses, judgements by people and preferences."""
