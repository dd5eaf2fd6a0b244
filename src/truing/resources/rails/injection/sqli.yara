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
