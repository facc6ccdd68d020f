"""Words that need no map: yes, no and unknown in the languages of European hospitals.

Only words that have one meaning in all of these languages; single letters, "x", "NA" and "nd" have not.
Words are compared without accents, case and doubled blanks (`fold`), those of a map also without
needless decimals (`as_word`).
"""

from __future__ import annotations

import re
import unicodedata

MINUS = dict.fromkeys(map(ord, "\u2212\u2012\u2013\ufe63\uff0d"), "-")


def fold(text: str) -> str:
    """Text without accents, case and doubled blanks.

    >>> fold(" SÍ "), fold("Não"), fold("no  consta")
    ('si', 'nao', 'no consta')
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(plain.casefold().split())


def as_word(text: str) -> str:
    """`fold`, and a whole number without the decimals that another program gave it.

    >>> as_word("ND"), as_word("1.0"), as_word("99,00"), as_word("−9.0"), as_word("1.5")
    ('nd', '1', '99', '-9', '1.5')
    """
    folded = fold(text.translate(MINUS))
    whole = re.fullmatch(r"(-?\d+)[.,]0{1,2}", folded)
    return whole[1] if whole else folded


#: English, Spanish, Catalan, German, French, Portuguese, Italian; then spreadsheets' own truth values.
YES = {
    fold(word)
    for word in (
        "yes", "sí", "ja", "oui", "sim", "sì", "1",
        "true", "verdadero", "cert", "wahr", "vrai", "verdadeiro", "vero",
    )
}  # fmt: skip
NO = {
    fold(word)
    for word in (
        "no", "nein", "non", "não", "0", "false", "falso", "fals", "falsch", "faux",
    )
}  # fmt: skip
UNKNOWN = {
    fold(word)
    for word in (
        "unknown", "not known", "not recorded", "not available", "missing", "n/a",
        "desconocido", "desconocida", "se desconoce", "no conocido", "no consta", "no disponible",
        "desconegut", "desconeguda", "no disponible", "no conegut",
        "unbekannt", "nicht bekannt", "nicht verfügbar", "fehlend",
        "inconnu", "inconnue", "non connu", "non disponible", "non renseigné", "manquant",
        "desconhecido", "desconhecida", "não conhecido", "não disponível", "ignorado",
        "sconosciuto", "sconosciuta", "non noto", "non nota", "non disponibile",
    )
}  # fmt: skip
#: What stands in the place of an identifier where a row sums up the rows above it.
TOTALS = {
    fold(word)
    for word in (
        "total", "totals", "totales", "totaux", "totais", "totali", "gesamt", "insgesamt",
        "sum", "suma", "summe", "somme", "soma", "somma",
        "mean", "average", "media", "média", "promedio", "mitjana", "mittelwert", "durchschnitt", "moyenne",
        "median", "mediana", "médiane", "minimum", "maximum", "count", "anzahl", "recuento",
    )
}  # fmt: skip
