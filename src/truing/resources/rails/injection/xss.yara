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
