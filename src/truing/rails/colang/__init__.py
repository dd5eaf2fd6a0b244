"""Colang 1.0: parses flow files and compiles the flows for the runtime.

`parse_colang` runs `lexer` (logical lines), `tokenizer` (blocks), `parser` (syntax tree, `ast`) and
`statements` (single lines); `compile_flow` generates instructions, and `compile_expression`
evaluates conditions in a sandbox. `yaml_flows` parses flows written as YAML.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "ast compiler",
        "ast": "BotText CallFlow ColangFile ExecuteAction Flow",
        "colang2": "Translation translate_colang2",
        "compiler": "CompiledFlow EVENT Instruction Program compile_flow",
        "expressions": "AttributeDict ExpressionError compile_expression find_variables",
        "flow_reference": "parse_flow_name parse_flow_parameters",
        "parser": "is_colang_2 parse_colang walk_steps",
        "script_ast": (
            "Activate Assign Await CallAction Group Hear If Leave Say Script ScriptFlow Start "
            "Statement UseGlobal When While"
        ),
        "script_expressions": "TextPattern compile_script_expression",
        "tokenizer": "ANONYMOUS_PREFIX",
        "yaml_flows": "parse_yaml_flow",
    },
)
