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
