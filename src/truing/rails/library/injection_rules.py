"""YARA rules for code in an answer that a database, a template or a browser would execute.

They cover the four kinds that NeMo Guardrails' `injection_detection` names: SQL, templates, Python
and markup. A rule matches a statement or a construct, not a single word, so that prose about
databases ("select the best offer; then insert the card") passes.
"""

from __future__ import annotations

_SQLI = r"""
rule sql_injection
{
    strings:
        $tautology = /'\s{0,20}(or|and)\s{1,20}'?\w{1,40}'?\s{0,20}=\s{0,20}'?\w{1,40}/ nocase
        $union = /\bunion\s{1,20}(all\s{1,20})?select\b/ nocase
        $stacked = /;\s{0,20}(drop|alter|truncate|delete|insert|update|create|exec|shutdown)\s{1,20}(table|database|from|into|index|view|user|login|schema|xp_\w{1,40}|\w{1,60}\s{1,20}set)\b/ nocase
        $drop = /\b(drop|truncate|alter)\s{1,20}(table|database|schema|view|index)\s{1,20}\S{1,80}/ nocase
        $delete = /\bdelete\s{1,20}from\s{1,20}\w{1,80}(\s{1,20}where\b|\s{0,20};|\s{0,20}--)/ nocase
        $insert = /\binsert\s{1,20}into\s{1,20}\S{1,80}[^\n]{0,200}\bvalues\s{0,20}\(/ nocase
        $commented = /\bselect\b[^\n]{1,200}\bfrom\b[^\n]{1,200}(--|\/\*)/ nocase
        $catalog = /\b(from|join)\s{1,20}(information_schema\.|pg_catalog\.|pg_\w{1,40}|sqlite_master|sys\.\w)/ nocase
        $spelled = /\bcha?r\s{0,5}\(\s{0,5}\d{1,3}\s{0,5}\)\s{0,5}(\+|\|\||,)\s{0,5}cha?r\s{0,5}\(/ nocase
        $delay = /\b(pg_sleep|sleep|benchmark)\s{0,5}\(\s{0,5}\d/ nocase
        $waits = /\bwaitfor\s{1,20}delay\b/ nocase
    condition:
        any of them
}
"""

_TEMPLATE = r"""
rule template_injection
{
    strings:
        $expression = /\{\{[^{}]{1,500}\}\}/
        $statement = /\{%[^{}]{1,500}%\}/
        $placeholder = /[$#]\{[^{}]{1,500}\}/
        $server_page = /<%[^%]{1,500}%>/
    condition:
        any of them
}
"""

_CODE = r"""
rule system_access
{
    strings:
        $import = /(^|[\s;`])import\s{1,20}(\w{1,40}\s{0,5},\s{0,5}){0,10}(os|sys|subprocess|shutil|pty|ctypes|importlib|builtins|cmd)\b/
        $from = /(^|[\s;`])from\s{1,20}(os|sys|subprocess|shutil|pty|ctypes|importlib|builtins|cmd)(\.\w{1,40}){0,5}\s{1,20}import\b/
        $dynamic = /\b(__import__|import_module)\s{0,5}\(/
        $call = /\b(os\.(system|popen|exec\w{0,3}|spawn\w{0,4}|remove|unlink|rmdir)|subprocess\.\w{1,20}|shutil\.rmtree)\s{0,5}\(/
        $evaluate = /\b(eval|exec|compile)\s{0,5}\(\s{0,5}(input|base64|bytes|open|request|__import__|compile|['"])/
    condition:
        any of them
}

rule network_access
{
    strings:
        $import = /(^|[\s;`])import\s{1,20}(\w{1,40}\s{0,5},\s{0,5}){0,10}(socket|asyncio|http|urllib\d?|requests|httpx|aiohttp|bs4|mechanize|paramiko|asyncssh|ftplib|smtplib)\b/
        $from = /(^|[\s;`])from\s{1,20}(socket|asyncio|http|urllib\d?|requests|httpx|aiohttp|bs4|mechanize|paramiko|asyncssh|ftplib|smtplib)(\.\w{1,40}){0,5}\s{1,20}import\b/
    condition:
        any of them
}
"""

_XSS = r"""
rule markup_injection
{
    strings:
        $script = /<\s{0,5}script\b[^>]{0,500}>/ nocase
        $handler = /<\w{1,20}\b[^>]{0,500}\son(error|load|click|mouseover|focus|toggle|submit|input|begin)\s{0,5}=/ nocase
        $scheme = /(href|src|action|data|formaction)\s{0,5}=\s{0,5}['"]?\s{0,5}(javascript|vbscript|data\s{0,5}:\s{0,5}text\/html)/ nocase
        $frame = /<\s{0,5}(iframe|object|embed|applet|base)\b[^>]{0,500}>/ nocase
        $embedded = /!\[[^\]\n]{0,500}\]\([^)\n]{1,2000}\)/
        $link = /\]\(\s{0,5}(javascript|vbscript|data)\s{0,5}:/ nocase
    condition:
        any of them
}
"""

INJECTION_RULES = {"sqli": _SQLI, "template": _TEMPLATE, "code": _CODE, "xss": _XSS}
"""Name under `injections:` -> YARA source."""
