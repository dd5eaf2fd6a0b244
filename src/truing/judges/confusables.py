"""Characters that look like Latin letters, and letters that are turned upside down.

The look-alikes are those single characters that confusables.txt of Unicode 10 (UTS #39; licence
Unicode-DFS-2016, permissive) maps to an ASCII letter and that compatibility normalisation leaves as
they are; small capitals, letters with a stroke and some Cyrillic and Greek ones were added.
"""

from __future__ import annotations

# ASCII letter -> the characters that look like it, as escapes: in print they look the same.
_LOOK_ALIKES = {
    "A": "\u039b\u2206\u0391\u0410\u13aa\u15c5\ua4ee\U000102a0\U00016f40",
    "B": "\u0392\u0412\u13f4\u15f7\ua4d0\ua7b4\U00010282\U000102a1\U00010301",
    "C": "\u0421\u13df\u2ca4\ua4da\U000102a2\U00010302\U00010415\U0001051c\U0001f74c",
    "D": "\u00d0\u13a0\u15de\u15ea\ua4d3",
    "E": "\u03a3\u2211\u0395\u0415\u13ac\u22ff\u2d39\ua4f0\U00010286\U000118a6\U000118ae",
    "F": ("\u03dc\u15b4\ua4dd\ua798\U00010287\U000102a5\U00010525\U000118a2\U000118c2\U0001d213"),
    "G": "\u050c\u13c0\u13f3\ua4d6",
    "H": "\u0397\u041d\u13bb\u157c\u2c8e\ua4e7\U000102cf",
    "J": "\u037f\u0408\u13ab\u148d\ua4d9\ua7b2",
    "K": "\u039a\u041a\u13e6\u16d5\u2c94\ua4d7\U00010518",
    "L": (
        "\u0141\u13de\u14aa\u2cd0\ua4e1\U0001041b\U00010526\U000118a3\U000118b2\U00016f16\U0001d22a"
    ),
    "M": "\u039c\u03fa\u041c\u13b7\u15f0\u16d6\u2c98\ua4df\U000102b0\U00010311",
    "N": "\u0418\u039d\u2c9a\ua4e0\U00010513",
    "O": (
        "\u00d8\u039f\u041e\u0555\u0b20\u12d0\u2c9e\u2d54\ua4f3\U00010292\U000102ab"
        "\U00010404\U000104c2\U00010516\U000118b5"
    ),
    "P": "\u03a1\u0420\u13e2\u146d\u2ca2\ua4d1\U00010295",
    "Q": "\u2d55",
    "R": "\u042f\u01a6\u13a1\u13d2\u1587\ua4e3\U000104b4\U00016f35\U0001d216",
    "S": "\u0405\u054f\u13d5\u13da\ua4e2\U00010296\U00010420\U00016f3a",
    "T": (
        "\u03a4\u0422\u13a2\u2ca6\ua4d4\U00010297\U000102b1\U00010315\U000118bc\U00016f0a\U0001f768"
    ),
    "U": "\u0426\u054d\u1200\u144c\ua4f4\U000104ce\U000118b8\U00016f42",
    "V": "\u0474\u13d9\u142f\u2d38\ua4e6\ua6df\U0001051d\U000118a0\U00016f08\U0001d20d",
    "W": "\u051c\u13b3\u13d4\ua4ea",
    "X": (
        "\u03a7\u0425\u166d\u16b7\u2cac\u2d5d\ua4eb\ua7b3\U00010290\U000102b4\U00010317\U00010527"
    ),
    "Y": "\u03a5\u0423\u04ae\u13a9\u13bd\u2ca8\ua4ec\U000102b2\U000118a4\U00016f43",
    "Z": "\u0396\u13c3\ua4dc\U000118a9",
    "a": "\u1d00\u0251\u03b1\u0430\u237a",
    "b": "\u0299\u0432\u03b2\u00df\u13fc\u0184\u042c\u13cf\u1472\u15af",
    "c": "\u0441\u1d04\u2ca5\uabaf\U0001043d",
    "d": "\u1d05\u0111\u00f0\u0501\u13e7\u146f\ua4d2",
    "e": "\u1d07\u0454\u03b5\u025b\u0435\u04bd\u212e\uab32",
    "f": "\u0493\u0192\u0584\u1e9d\ua799\uab35",
    "g": "\u0262\u050d\u018d\u0261\u0581\u1d83",
    "h": "\u029c\u043d\u0127\u04bb\u0570\u13c2",
    "i": "\u026a\u0457\u0131\u0269\u03b9\u0456\u04cf\u13a5\u2373\ua647\uab75\U000118c3",
    "j": "\u1d0a\u03f3\u0458",
    "k": "\u1d0b\u043a\u03ba\u0199",
    "l": (
        "\u029f\u0142\u0196\u01c0\u0399\u0406\u04c0\u16c1\u23fd\u2c92\u2d4f\ua4f2\U0001028a"
        "\U00010309\U00016f28"
    ),
    "m": "\u1d0d\u043c",
    "n": "\u0274\u03b7\u03c0\u043f\u0438\u0578\u057c",
    "o": (
        "\u00f8\u0275\u03bf\u03c3\u043e\u0585\u0d20\u101d\u10ff\u1d0f\u1d11\u2c9f\uab3d"
        "\U0001042c\U000104ea\U000118c8\U000118d7"
    ),
    "p": "\u1d18\u00fe\u03c1\u0440\u2374\u2ca3",
    "q": "\u01eb\u051b\u0563\u0566",
    "r": "\u0280\u044f\u0433\u1d26\u2c85\uab47\uab48\uab81",
    "s": "\u01bd\u0455\ua731\uabaa\U00010448\U000118c1",
    "t": "\u1d1b\u0442\u03c4\u0167\u01ad",
    "u": "\u03bc\u0446\u028b\u03c5\u057d\u1d1c\ua79f\uab4e\uab52\U000104f6\U000118d8",
    "v": "\u03bd\u0475\u1d20\uaba9\U00011706\U000118c0",
    "w": "\u03c9\u0448\u026f\u0461\u051d\u0561\u1d21\uab83\U0001170a\U0001170e\U0001170f",
    "x": "\u03c7\u0436\u0445\u1541\u157d\u292b\u292c\u2a2f",
    "y": "\u10e7\u0263\u028f\u03b3\u0443\u04af\u1d8c\u1eff\uab5a\U000118dc",
    "z": "\u0290\u01b6\u1d22\uab93\U000118c4",
}

CONFUSABLES: dict[int, str] = {
    ord(character): letter
    for letter, characters in _LOOK_ALIKES.items()
    for character in characters
}

UPSIDE_DOWN: dict[int, str] = {
    ord(turned): letter
    for letter, turned in zip(
        "abcdefghijklmnopqrtuvwy",
        "\u0250q\u0254p\u01dd\u025f\u0183\u0265\u1d09\u027e\u029el\u026fuodb\u0279\u0287n\u028c\u028d\u028e",
        strict=True,
    )
}
