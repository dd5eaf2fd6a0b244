"""Undoes the tricks by which text slips past a classifier, and tells English from other languages.

`clean` leaves ordinary English as it is: it folds compatibility forms, drops invisible characters, maps look-alike
letters of other alphabets to Latin where they stand in for it, and closes up words spelled with gaps. After Grondahl
et al. 2018 (All You Need is "Love", arXiv:1808.09115) and Boucher et al. 2022 (Bad Characters, arXiv:2106.09898).
"""

from __future__ import annotations

import re
import unicodedata

MOST = 20_000  # characters that are looked at: the head and the tail of a longer text

_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_LOOKALIKE = str.maketrans(
    "авекмнорстухіјѕԁԛԝһҽүАВЕКМНОРСТУХІЈЅԌԜҮаеорсухαβεικνορτυχηΑΒΕΖΗΙΚΜΝΟΡΤΥΧʟɡıɑɩʀɴᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡʏᴢ",
    "abekmhopctyxijsdqwheyABEKMHOPCTYXIJSGWYaeopcyxabeiknoptuxnABEZHIKMNOPTYXlgiaiRNABCDEFGHIJKMOPSTUVWYZ",
)
_WORD = re.compile(r"[^\W\d_]+")
_GAPS = re.compile(r"(?<![^\W_])(?:[^\W\d_](?P<gap>[ .\-_*·|~]{1,2})(?:[^\W\d_](?P=gap)){2,}[^\W\d_])(?![^\W_])")
_LEET = re.compile(r"(?<![\w$@!])[a-zA-Z$@!0134578]*[$@!0134578][a-zA-Z$@!0134578]*(?![\w$@!])")
_DIGITS = str.maketrans("0134578$@!", "oieastbsai")
_LONG = re.compile(r"([^\W\d_])\1{3,}")
_SPACE = re.compile(r"[^\S\n]+")


def clip(text: str, most: int = MOST) -> str:
    """The text, or the head (three quarters) and the tail of one that is longer than `most` characters."""
    if len(text) <= most:
        return text
    head = most * 3 // 4
    return f"{text[:head]} {text[-(most - head) :]}"


def _latin(letters: str) -> int:
    return sum(c < "\u0250" or "\u1e00" <= c < "\u1f00" for c in letters)


def _homoglyphs(text: str) -> str:
    """Look-alikes become Latin: in words that mix alphabets, and in foreign words amid mostly Latin text."""
    if text.isascii():
        return text
    letters = "".join(_WORD.findall(text))
    mostly = _latin(letters) >= 0.5 * len(letters)

    def fold(match: re.Match[str]) -> str:
        word = match.group()
        n = _latin(word)
        if n == len(word):
            return word
        made = word.translate(_LOOKALIKE)
        return made if n > 0 or (mostly and made.isascii()) else word

    return _WORD.sub(fold, text)


def _leet(match: re.Match[str]) -> str:
    word = match.group()
    letters = sum(c.isalpha() for c in word)
    # ordinary tokens (B2B, covid19, 3rd, $100, wow!) keep their digits: only inner substitutes in real words count
    inner = word.strip("!$@0134578")
    if letters < 2 or letters < len(word) * 0.4 or inner.isalpha():
        return word
    return word.translate(_DIGITS)


def clean(text: str) -> str:
    """The text as a reader sees it."""
    text = clip(text)
    if not text.isascii():
        text = _HIDDEN.sub("", unicodedata.normalize("NFKC", text))
        text = "".join(c for c in text if not unicodedata.combining(c) or c < "\u0370" or c > "\u036f")
        stripped = unicodedata.normalize("NFD", text)
        if sum(map(unicodedata.combining, stripped)) > 230 * 0.3 * max(1, len(text)):  # stacked marks ("zalgo")
            text = "".join(c for c in stripped if not unicodedata.combining(c))
        text = _homoglyphs(text)
    text = _GAPS.sub(lambda m: re.sub(r"[^\w]|_", "", m.group()), text)
    text = _LEET.sub(_leet, text)
    text = _LONG.sub(r"\1\1", text)
    return _SPACE.sub(" ", text).strip()


_COMMON = {
    "en": "the of and to in is you that it he was for on are as with his they be at have this from or had by not but "
    "what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more go see no way could people my than "
    "been who its now did get may should don't isn't it's i'm me i a just because am does really why good never here",
    "es": "el la los las de que y en un una es por con para del se no lo como más pero sus le ya o este sí porque esta "
    "entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros "
    "ese eso ante ellos qué cómo puedo hacer puede si su al mi tu te",
    "fr": "le la les de des et en un une est pour que qui dans sur pas au avec ce il elle je ne se plus par mais ou où "
    "son sa ses nous vous ils sont être avoir fait comme tout cette aux leur bien peut sans si mon ma comment du à",
    "de": "der die das und ist in den von zu mit sich des auf für nicht ein eine als auch es an werden aus er hat dass "
    "sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr "
    "durch man ich du wir kann mir mein dein was wenn",
    "it": "il lo la i gli le di che e un una è per con non si da in del della sono come più ma anche al dei nel alla "
    "questo ha o se mi ti ci cosa perché quando molto essere fare tutto puoi posso",
    "pt": "o a os as de que e em um uma é para com não se por mais do da dos das no na como mas ao ele seu sua ou quando "
    "muito nos já eu também só pelo pela até isso ela entre depois sem mesmo aos você fazer está são",
    "nl": "de het een en van ik te dat die in is niet zijn op aan met voor er maar om hij ook als bij nog naar dan zou "
    "wat mijn ze wordt deze heeft je jij hoe kan worden over hebben uit geen meer",
    "pl": "i w na z się do nie to że jest o jak po co ale za przez od jego tak czy dla już być są może ich tego tylko "
    "jej był gdy lub który która które mnie ty ja",
    "sv": "och att det i en på är som för av med den till inte har de ett om han men var jag sig från vi så kan när "
    "skulle man hur du vad eller också",
    "tr": "ve bir bu da de için ile çok ne ben sen o mi gibi daha var yok ama en kadar sonra nasıl olarak olan değil "
    "şey her beni bana",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena tersebut bisa ada mereka "
    "lebih kita atau kami adalah apa bagaimana anda aku",
}  # fmt: skip
_WORDS = {code: frozenset(words.split()) for code, words in _COMMON.items()}
_TOKENS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def language(text: str) -> str:
    """`en`, another code, or `und` (another script). Too little to tell counts as English."""
    sample = clip(text, 4000)
    words = [w.replace("’", "'") for w in _TOKENS.findall(sample.lower())]
    letters = "".join(words)
    if len(letters) >= 4 and _latin(letters) < 0.5 * len(letters):
        return "und"
    if len(words) < 5:
        return "en"
    shares = {code: sum(w in known for w in words) / len(words) for code, known in _WORDS.items()}
    best = max(shares, key=lambda code: shares[code])
    if best != "en" and shares[best] >= 0.2 and shares[best] > 1.5 * shares["en"] + 0.05:
        return best
    return "en"
