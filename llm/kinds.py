"""How questions ask for a number, a time, steps, a list or what a thing is, and what an answer then says, in
each language of `llm.language`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def _any(patterns: Iterable[str], before: str = r"\b") -> re.Pattern[str]:
    return re.compile(rf"{before}(?:{'|'.join(patterns)})", re.IGNORECASE)


ASKS_NUMBER = _any(
    (
        r"how (?:many|much|long|often|far|old|high|large|big|fast|quickly|soon|late|early|heavy|deep)\b",
        r"what (?:percentage|price|number|amount|share|does .* cost)\b",
        r"wie ?(?:viele?|lange|oft|hoch|groß|alt|weit|schnell|teuer|schwer|tief)\b",
        r"welcher (?:prozentsatz|anteil)\b",
        r"combien\b|quel(?:le)? (?:pourcentage|prix|nombre|montant|âge|taux|part|durée)\b",
        r"cu[aá]nt[oa]s?\b|qué (?:porcentaje|precio|número|cantidad|edad)\b",
        r"quant[oiae]\b|(?:che|quale) (?:percentuale|prezzo|numero)\b",
        r"quant[oa]s?\b|qual (?:é )?(?:[oa] )?(?:percentagem|porcentagem|preço|número|valor|idade)\b",
        r"hoeveel\b|hoe (?:lang|vaak|ver|oud|hoog|groot|snel|duur|zwaar)\b",
        r"il[eu]\b|jak (?:długo|często|daleko|wysok|duż|szybko|drog)",
        r"hur (?:många|mycket|lång|länge|ofta|gammal|hög|stor|dyr)\b",
        r"hvor (?:mange|meget|langt?|længe|ofte|gammel|højt?|stort?|dyrt?)\b",
    )
)
ASKS_TIME = _any(
    (
        r"when\b|(?:what|which) (?:date|year|time|day|month|century|decade)\b",
        r"wann\b|welche[mnrs]? (?:jahr|datum|tag|monat|jahrhundert|uhrzeit)\w*",
        r"quand\b|quelle? (?:année|date|heure|jour|mois|siècle)\b",
        r"cu[aá]ndo\b|qué (?:año|fecha|hora|día|mes|siglo)\b",
        r"quando\b|(?:che|quale) (?:anno|data|ora|giorno|mese|secolo)\b",
        r"(?:que|qual) (?:ano|data|hora|dia|mês|século)\b",
        r"wanneer\b|welke? (?:jaar|datum|dag|maand|eeuw)\b",
        r"kiedy\b|któr(?:ym|ego) (?:roku|dnia|miesiącu|wieku)\b",
        r"när\b|vilke[nt] (?:år|datum|dag|månad)\b",
        r"hvornår\b|hvilke[nt] (?:år|dato|dag|måned)\b",
    )
)
_NUMBERS = {
    "en": """
        one two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred
        thousand million half once twice daily weekly monthly yearly no none every unlimited
    """,
    "de": """
        zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig hundert tausend halbe?
        einmal zweimal täglich wöchentlich monatlich jährlich keine
    """,
    "fr": """
        deux trois quatre cinq six sept huit neuf dix onze douze quinze vingt trente cent mille demie?
        aucune?
    """,
    "es": """
        dos tres cuatro cinco seis siete ocho nueve diez once doce quince veinte treinta cien mil medi[oa]
        ningun[oa]?
    """,
    "it": """
        due tre quattro cinque sei sette otto nove dieci undici dodici venti trenta cento mille mezz[oa]
        nessun[oa]?
    """,
    "pt": """
        dois duas três quatro cinco seis sete oito nove dez onze doze vinte trinta cem mil meia nenhuma?
    """,
    "nl": """
        twee drie vier vijf zes zeven acht negen tien elf twaalf twintig dertig honderd duizend half geen
    """,
    "pl": r"""
        dwa dwie trzy cztery pięć sześć siedem osiem dziewięć dziesięć dwadzieścia sto tysiąc pół żad\w+
    """,
    "sv": """
        två tre fyra fem sex sju åtta nio tio elva tolv tjugo trettio hundra tusen halv inga
    """,
    "da": """
        to tre fire fem seks syv otte ni ti elleve tolv tyve tredive hundrede tusind halv ingen
    """,
}
"""Numbers in words, and what stands for one."""
_TIMES = {
    "en": """
        january february march april may june july august september october november december monday
        tuesday wednesday thursday friday saturday sunday days? weeks? months? years? hours? minutes?
        century decade first last after before until within once soon immediately
    """,
    "de": """
        januar februar märz april mai juni juli august september oktober november dezember montags?
        dienstags? mittwochs? donnerstags? freitags? samstags? sonntags? tage?n? wochen? monate?n?
        jahre?n? stunden? minuten? jahrhunderts? nach vor bis sobald sofort
    """,
    "fr": """
        janvier février mars avril mai juin juillet août septembre octobre novembre décembre lundi mardi
        mercredi jeudi vendredi samedi dimanche jours? semaines? mois ans? années? heures? minutes? siècle
        après avant dès immédiatement
    """,
    "es": """
        enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre lunes
        martes miércoles jueves viernes sábado domingo días? semanas? mes meses años? horas? minutos?
        siglo después antes hasta
    """,
    "it": """
        gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre
        lunedì martedì mercoledì giovedì venerdì sabato domenica giorn[oi] settiman[ae] mes[ei] ann[oi]
        or[ae] minut[oi] secolo dopo prima entro subito
    """,
    "pt": """
        janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro segunda
        terça quarta quinta sexta sábado domingo dias? semanas? mês meses anos? horas? minutos? século
        depois antes até
    """,
    "nl": """
        januari februari maart april mei juni juli augustus september oktober november december maandag
        dinsdag woensdag donderdag vrijdag zaterdag zondag dag dagen week weken maand maanden jaar jaren
        uur uren minuten eeuw na voor tot binnen
    """,
    "pl": r"""
        stycz\w+ lut\w+ mar\w+ kwie\w+ maj\w* czerw\w+ lip\w+ sierp\w+ wrze\w+ paźdz\w+ listop\w+ grud\w+
        dni dnia tygodni\w* miesi\w+ roku lat godzin\w* minut\w* wieku po przed do
    """,
    "sv": r"""
        januari februari mars april maj juni juli augusti september oktober november december måndag
        tisdag onsdag torsdag fredag lördag söndag dag dagar veck\w+ månad\w* år timm\w+ minuter efter
        före inom
    """,
    "da": r"""
        januar februar marts april maj juni juli august september oktober november december mandag tirsdag
        onsdag torsdag fredag lørdag søndag dage? uger? måned\w* år timer? minutter efter før inden
    """,
}
"""Words of a date or a time."""


def _said(words: str) -> re.Pattern[str]:
    return re.compile(rf"\d|\b(?:{'|'.join(words.split())})\b", re.IGNORECASE)


NUMBER = {code: _said(words) for code, words in _NUMBERS.items()}
TIME = {code: _said(words) for code, words in _TIMES.items()}
ASKS_STEPS = _any(
    (
        r"how (?:do|does|did|can|could|should|would|must|to|is|are)\b|(?:what|which) (?:are the )?steps\b",
        r"wie (?!(?:viele?|lange?|oft|hoch|groß|alt|weit|schnell|teuer|heißt|schwer|tief)\b)",
        r"comment\b|cómo\b|come\b|como\b",
        r"hoe (?!(?:veel|lang|vaak|oud|hoog|groot|ver|snel|duur)\b)",
        r"jak (?!dług|częst|dale|wyso|duż|szyb|drog)",
        r"hur (?!(?:många|mycket|länge|lång|ofta|gammal|stor|hög|dyr)\b)",
        r"hvordan\b",
    ),
    before=r"[\s¿]*",
)
ASKS_SEVERAL = _any(
    (
        r"(?:which|what) (?:are\b|(?:\w+ ){0,2}\w+s (?:are|do|does|can|must|should|is|has|have)\b)|list\b",
        r"name (?:all|the)\b|what (?:must|should|does|do|can)\b",
        r"welche\b|nenne|was (?:alles|muss|gehört|darf|kann)\b",
        r"quel(?:le)?s\b|que (?:doit|faut|peut)\b",
        r"cuáles\b|qué \w+s\b|qué (?:debe|puede|hay)\b",
        r"quali\b|cosa (?:deve|devo|posso)\b",
        r"quais\b|o que (?:deve|posso)\b",
        r"welke\b|jakie\b|vilka\b|hvilke\b",
    ),
    before=r"[\s¿]*",
)
_ARTICLES = (
    "an? the ein eine einem einer der die das une? les? la el los las una? il lo gli i um uma os? as? een de"
    " het en ett et"
)
ASKS_WHAT_IS = re.compile(
    r"[\s¿]*(?:what(?: is| are| does|'s|’s)(?: meant by)?|define|explain"
    r"|was (?:ist|sind|bedeutet|heißt|versteht man unter)"
    r"|qu['’]est[- ]ce qu(?:e c['’]est qu)?(?:e |['’])|que signifie|c['’]est quoi"
    r"|qué (?:es|son|significa)|(?:che )?cos(?:a |['’])(?:è|sono|significa)"
    r"|o que (?:é|são|significa)|wat (?:is|zijn|betekent)|co (?:to jest|oznacza)|czym (?:jest|są)"
    r"|vad (?:är|betyder|innebär)|hvad (?:er|betyder))"
    rf"\s*(?:(?:{'|'.join(_ARTICLES.split())})\s+|l['’])?"
    r"((?:[\w.-]+\s*){1,3}?)\s*(?:mean|stand for)?[\s?.!]*",
    re.IGNORECASE,
)
"""The name of the thing is its group."""
_NEAR = r"\W{0,3}(?:\([^()]{1,60}\)\W{0,2})?\s*"
_VERB = (
    r"(?:is|are|means?|refers? to|stands? for|denotes?|describes?"
    r"|ist|sind|bezeichnet|bedeutet|beschreibt|steht für|est|sont|désigne|signifie|es|son|significa|designa"
    r"|è|sono|indica|é|são|zijn|betekent|to|jest|oznacza|är|betyder|innebär|er)\b"
)
_MARK = r"[:–—;]|- "
IS = rf"{_NEAR}(?:{_VERB}|{_MARK})"
"""What follows a name where a text says what it is: a verb, or the mark of a glossary or a table's row;"""
IS_A = rf"{_NEAR}(?:{_VERB}\s+(?:{'|'.join(_ARTICLES.split())}|one of)\s|{_MARK})"
"""the same where it names the kind of thing."""
