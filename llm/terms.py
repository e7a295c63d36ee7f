"""Words as the built-in model compares them: lower case, stemmed, without the words that carry no meaning.

It has its own, since the analyzer of an index is a release's choice and this model's behaviour is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import Stemmer

from llm.language import LANGUAGES

LONG = 5
"""Letters of a word that is long enough to be known again when one is missing or too many,"""
CERTAIN = 8
"""and when one is another."""

# A version or a decimal number is one word: 6.0 is not a 6 and a 0.
_WORD = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
# A German verb with "zu" in it: einzureichen is einreichen.
_WITH_ZU = re.compile(
    r"\b(ab|an|auf|aus|bei|dar|durch|ein|fest|fort|her|hin|los|mit|nach|um|vor|weg|weiter|zu|zurück|zusammen)"
    r"zu(?=\w{3,}en\b)"
)
_APOSTROPHE = re.compile(r"['’](?:s|t|re|ve|ll|d|m)\b")


def _bare(word: str) -> str:
    """Without accents: who asks often leaves them out."""
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", "".join(char for char in apart if not unicodedata.combining(char)))


_ENGLISH_STOPS = """
    a about all also am an and any are as at be because been being but by can cannot could did do does doing
    done for from get gets give given gives got had has have having he her hers him his how i if in into is
    it its just let may me might mine much many more most must my no nor not of off on once one ones only or
    other our ours please s shall she should so some such t tell than that the their theirs them then there
    these they this those to too up upon us very was we were what when where whether which while who whom
    whose why will with would you your yours whats whos hows wheres
"""
# What is left out of a text whose language nobody told.
_FOREIGN_STOPS = """
    der die das den dem des ein eine einen einem einer und oder ist sind war wie was wer wann wo warum welche
    welcher welches von zu zum zur im in auf für mit bei nach nicht es sie ich wir ihr hat haben wird werden
    wurde kann viele viel
    el la los las un una unos unas y o es son fue era de del al en por para con que qué quién cuándo cuál
    cómo dónde cuántos cuántas se su sus no lo le más
    le les des du et ou est sont qui quoi quand où comment combien pour avec dans sur par ne pas ce cette
"""
# Beyond the words by which a language is told: other forms of theirs, and all that begins a question.
_OTHER_STOPS = {
    "de": """
        am ans bin bist bei da dabei damit dann daran darf dass davon dazu dein dem denn deren dessen
        diese diesem diesen dieser dieses dir doch dort du durch euch euer gab gegen habe haben hatte
        hatten ihm ihn ihnen ihre ihrem ihren ihrer ins jede jedem jeden jeder jedes kein keine keinen
        keiner konnte konnten können könnte mal man mehr meinem meinen meiner mich mir muss musste müssen
        nein noch nur ob ohne schon sein seine seinem seinen seiner seit sind so sollen soll sollte um uns
        unser unsere vom war waren warst was weil welchem welchen wem wen wenn werde wessen weshalb weswegen
        wieso wieviel wieviele wie wo wobei wodurch wofür woher wohin womit woran worauf woraus worin
        worüber wovon wozu wäre wären würde würden
    """,
    "fr": """
        afin ai ait alors après as aucun aucune auquel aussi autre autres avait avant avez avoir avons
        bien c cela celle celles celui ceux chaque chez ci comme d dans depuis desquels doit doivent donc
        dont duquel elles en entre eu eux fait faire faut fut font furent j jusqu l laquelle lequel
        lesquelles lesquels leurs lors lui là m ma mais me mes moi mon même n non nos notre on ont ou peut
        peux peuvent plus pourrait puis-je qu quoi s sa sans se sera si soit sous t ta te tes toi ton tous
        tout toute toutes très un va vers vos votre étaient était y
    """,
    "es": """
        ante antes aquel aquella bajo cada cuando cuanto cuánta cuántas cual cuales cuya cuyo cuyos da del
        desde donde durante e ella ellas ellos entre eran esa esas ese esos estaba estaban estas esto
        estos fueron ha haber había habían hacer hace hacia han hasta he hecho i mas me mi mis mucha
        muchas mucho muchos muy nada ni nuestro nuestra otra otras otro otros porque pueden pueda puedo
        que quien quienes según sea ser si sido sin sobre solo son soy su sí tanto te tener tengo ti tras
        tu tus u usted ustedes va ya dice dijo debe deben
    """,
    "it": """
        ad agli ai allo anche ancora avere aveva avevano avuto c che ci col come cui d dagli dai dalla
        dalle dallo degli del dell deve devono dopo e ed ella era erano essa essere esso fa fare fatto
        fino fra fu fui furono già gli ho il l lei li loro lo lui mentre mi miei mie molta molte molti
        molto ne negli nei nell nelle nello no noi nostra nostro o od ogni ognuno oppure poi posso possono
        prima pure può qual qualcosa quello quella quelle quelli quanta qui se sei senza si sia siano sta
        stata state stati stato su sua sue sugli sui sull sulla sulle suoi sé ti tra tu tuo tutti tutto
        tutte tutta vi voi vostro
    """,
    "pt": """
        ainda além antes após aquela aquele aqueles as até cada cujo cuja cujos dela dele deles depois
        desde deve devem dessa desse desta deste do durante e ela elas ele eles entre era eram esse essa
        esses essas esteve estava foram faz fazer feito há havia isso isto já lhe mais me mesmo meus minha
        minhas muito muita muitas muitos nem nessa nesse nesta neste nos nossa nosso num numa nós o onde
        outra outras outro outros pelas pelos pode podem posso por porquê pra próprio quanta quando que
        quê se seja sem sendo ser seus sido sob sobre suas só tal também tenho ter teve tinha tinham todo
        todos toda todas um umas uns você vocês à às é
    """,
    "nl": """
        ad al alle alleen als af ander andere ben bent bij daar dan dat den der deden doe doen doet door
        du dus elk elke er erg ga gaat geen geweest had hadden heb hebt hem hen hij hun ieder iets jij
        jouw jullie kon konden kun kunnen kunt me meer men mij mag moet moeten na naar nog nu of omdat
        onder ons onze ooit over per reeds sinds te tegen ten ter tijdens toch toen tot tussen u uw van
        vanaf veel via voor want waarin waarmee waarop waaruit waarvan waarvoor was waren wel welk werd
        werden wiens wil wilde wordt wou zal ze zelf zich zijn zo zonder zou zouden
    """,
    "pl": """
        a aby albo aż bardzo bez bo być będzie będą ci co czego czemu czym dlatego do gdy go ich im inne
        inny iż ja jaka jaki jakie jakich jakim jako jakiego jej jeszcze jeśli jeżeli już każdy kim kogo
        komu która którą którego której których którym którzy lecz mi mnie moja moje mogą mogę musi można
        my na nad nas naszego nasz nic niej nim niż o od ona one oni ono po pod podczas poza przed przy
        się sobie swoje ta tak taki także tam te tej ten też tych tylko u w we wszystkie z ze został
        została zostały są żeby skąd dokąd ilu
    """,
    "sv": """
        alla allt andra annan att av bara bland blev bli borde då där därför deras dess dig din dina ditt
        efter eftersom ej emot er ett får få genom ha hade hans har hennes hos in inga ingen innan inom
        inte kunde man mellan mer mig min mina mitt mot måste ned ni nu någon något några när och oss på
        samma sedan sig sina sitt själv skulle snart som tills under upp ut utan vad vara var varför varit
        varje vars vart vem vems vi vid vilkas vill ville vår våra än är åt över
    """,
    "da": """
        af alle alt anden at blev blevet bør da dem den denne der deres det dette dig din dine disse dog
        du efter eller end ens er et få får før gennem han hans havde hendes her hos hun hvad hvem hvis
        hvilken hvornår hvorfra hvorhen ind ingen intet ja jo kun kunne man mellem men mere mig min mine
        mit mod mange må måtte ned nej nogen noget nogle nu når og også om op os over på samt selv sig sin
        sine sit skulle som så til ud uden under var ved vil ville vor være været
    """,
}
_STOPS = {"en": frozenset(_ENGLISH_STOPS.split())}
for _code, _more in _OTHER_STOPS.items():
    _said = LANGUAGES[_code].words.union(_more.split())
    _STOPS[_code] = _said.union(map(_bare, _said))
_ANY_STOPS = _STOPS["en"].union(_FOREIGN_STOPS.split())
_STEMMERS = {code: language.name.lower() for code, language in LANGUAGES.items()}
# Forms that a stemmer does not bring together. Left out are those that are words of their own as well: left,
# found, felt, saw.
_IRREGULAR_FORMS = """
    become became; begin began begun; break broke broken; bring brought; build built; buy bought; catch
    caught; choose chose chosen; come came; draw drew drawn; drive drove driven; fight fought; forbid
    forbade forbidden; forget forgot forgotten; go went gone; grow grew grown; hide hid hidden; hold held;
    keep kept; know knew known; lend lent; lose lost; make made; mean meant; pay paid; run ran; seek
    sought; sell sold; send sent; speak spoke spoken; spend spent; steal stole stolen; take took taken;
    teach taught; tell told; think thought; throw threw thrown; understand understood; win won; withdraw
    withdrew withdrawn; write wrote written; child children; person people; foot feet; tooth teeth; mouse
    mice
"""
_IRREGULAR = {form: group.split()[0] for group in _IRREGULAR_FORMS.split(";") for form in group.split()[1:]}
_LONGEST_KEPT = 64
"""Characters of a word whose stem is remembered: longer ones are no words, and a text may be one."""


def words(text: str) -> list[str]:
    """The text's words in lower case, in order."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return _WORD.findall(_THOUSANDS.sub("", _APOSTROPHE.sub("", folded)))


def terms(text: str, language: str | None = None) -> list[str]:
    """The text's stemmed words without stop words, in order, repeats included: in the language of this code;
    without one stems are English, and the smallest words of several languages are left out."""
    stops, stemmer = _of(language)
    said = _WITH_ZU.sub(r"\1", text.lower()) if language == "de" else text
    return [
        _stem(word, stemmer) if len(word) <= _LONGEST_KEPT else _stemmed(word, stemmer)
        for word in words(said)
        if word not in stops
    ]


def _of(language: str | None) -> tuple[frozenset[str], str]:
    """The small words and the stemmer."""
    return (_STOPS[language], _STEMMERS[language]) if language else (_ANY_STOPS, _STEMMERS["en"])


def respelled(text: str, others: Iterable[str], language: str | None = None) -> str:
    """The text with the words of the other texts in the place of its slips: two letters that changed places,
    or one within that is missing or too many, in a long word also one that is another. Other letters, and
    other endings, rather make another word, and a name is left as it is."""
    known: frozenset[str] = frozenset()
    stems: frozenset[str] = frozenset()
    stops, stemmer = _of(language)

    def right(match: re.Match[str]) -> str:
        nonlocal known, stems
        word = match.group().lower()
        named = match.start() > 0 and match.group()[0].isupper() and language != "de"
        if named or len(word) < LONG or not word.isalpha() or word in stops:
            return match.group()
        if not known:
            known = frozenset(said for other in others for said in words(other))
            stems = frozenset(_stem(said, stemmer) for said in known)
        return match.group() if _stem(word, stemmer) in stems else _nearest(word, known) or match.group()

    return _WORD.sub(right, text)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    like = (other for other in known if other[0] == word[0] and abs(len(other) - len(word)) <= 1)
    return min((other for other in like if _slip(word, other)), default=None)


def _slip(one: str, other: str) -> bool:
    if len(one) == len(other):
        differ = [at for at in range(len(one)) if one[at] != other[at]]
        return (len(differ) == 1 and 0 < differ[0] < len(one) - 1 and len(one) >= CERTAIN) or (
            len(differ) == 2
            and [one[at] for at in differ] == [other[at] for at in reversed(differ)]
            and (differ[1] == differ[0] + 1)
        )
    short, long = sorted((one, other), key=len)
    return any(long[:at] + long[at + 1 :] == short for at in range(1, len(long) - 1))


@lru_cache(maxsize=1 << 16)
def _stem(word: str, stemmer: str = "english") -> str:
    return _stemmed(word, stemmer)


def _stemmed(word: str, stemmer: str) -> str:
    # A stemmer holds the word it works on, so threads cannot share one; making one costs a microsecond.
    if stemmer == "english":
        return str(Stemmer.Stemmer(stemmer).stemWord(_IRREGULAR.get(word, word)))
    return _bare(str(Stemmer.Stemmer(stemmer).stemWord(word)))
