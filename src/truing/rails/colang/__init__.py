"""Colang 1.0: parses flow files and compiles the flows for the runtime.

`parse_colang` runs `lexer` (logical lines), `tokenizer` (blocks), `parser` (syntax tree, `ast`) and
`statements` (single lines); `compile_flow` generates instructions, and `compile_expression`
evaluates conditions in a sandbox. `yaml_flows` parses flows written as YAML.
"""
