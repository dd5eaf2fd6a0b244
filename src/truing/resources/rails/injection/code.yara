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
