"""Which language a text is in, and the few sentences that the service says itself, in each of them.

Told by words that every text of the language uses (articles, pronouns, question words). That is enough for a
question or a sentence of European languages, needs no model, and says None rather than guess.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Language:
    """`not_found` is what an answer says, word for word, when the passages do not hold it; `only_passages`
    introduces passages where no model could answer; `unsearched` takes the place of `not_found` where the
    index has lost passages."""

    name: str
    words: frozenset[str]
    not_found: str
    only_passages: str
    unsearched: str


_WORD = re.compile(r"¿|[^\W\d_]+(?:['’](?=[^\W\d_]))?")
# Words that ask in one of these languages and are no words of the others: one of them tells a question.
_ASKING = {
    "de": "wann wer wem wen wessen warum wieso weshalb wieviel wieviele wohin woher wofür womit worin worauf"
    " wovon wozu wodurch worum woran welche welcher welches welchen welchem",
    "fr": "combien pourquoi quand quel quelle quels quelles lequel laquelle",
    "es": "cuál cuáles cuándo cuánto cuánta cuántos cuántas cómo dónde quién quiénes qué",
    "it": "perché quanti quante quale quali",
    "pt": "quantos quantas quem quais",
    "nl": "hoeveel wanneer waarom welke waar waarin waarvan",
    "pl": "ile ilu kiedy kto gdzie dlaczego który która które jak jaki jaka jakie",
    "sv": "varför vilken vilket vilka vem när",
    "da": "hvornår hvad hvem hvor hvordan hvorfor hvilken hvilket hvilke",
}
_QUESTION = 30
"""Words of a text that is taken for a question, at most."""
_SHORT = 8
"""Words of a text that is too short to say many of them."""
_LEAST, _LEAST_OF_SHORT = 1.5, 1.0
"""Weight of a language's words that a text needs;"""
_LEAD = 1.3
"""how many times that of any other language;"""
_DIFFERENT = 2
"""and how many different ones: a table may repeat one that two languages share."""


def _language(name: str, words: str, not_found: str, only_passages: str, unsearched: str) -> Language:
    return Language(name, frozenset(words.split()), not_found, only_passages, unsearched)


LANGUAGES: dict[str, Language] = {
    "en": _language(
        "English",
        "the of and to in is that for it on are with as was be by this at from or have an not what how when"
        " where which who why does do did can could should would must may you your i my we our they their"
        " there has had will if than been were but its his her he she any all many much",
        "The documents do not answer this question.",
        "No model can answer at the moment. These passages are closest to the question:",
        "The search index is not complete at the moment, so the documents could not be looked through.",
    ),
    "de": _language(
        "German",
        "der die das und ist nicht ein eine einen einem einer den dem des mit von zu zum zur im auf für"
        " sich auch als wie was wer wann wo warum welche welcher welches wird werden wurde sind hat haben"
        " ich sie es wir man kann oder aber bei nach aus über vor durch unter viele viel gibt mein meine ihr"
        " beim",
        "Die Dokumente beantworten diese Frage nicht.",
        "Zurzeit kann kein Modell antworten. Diese Stellen kommen der Frage am nächsten:",
        "Der Suchindex ist zurzeit nicht vollständig; die Dokumente konnten nicht durchsucht werden.",
    ),
    "fr": _language(
        "French",
        "le la les un une des du de et est que qui dans pour pas sur au aux avec ce cette ces il elle ils"
        " nous vous je ne par plus quel quelle quels quelles quand où comment pourquoi combien sont a ont"
        " être été son sa ses leur y en se l' d' qu' c' n' s' j' est-ce",
        "Les documents ne répondent pas à cette question.",
        "Aucun modèle ne peut répondre pour le moment. Voici les passages les plus proches de la question :",
        "L'index de recherche est incomplet pour le moment : les documents n'ont pas pu être parcourus.",
    ),
    "es": _language(
        "Spanish",
        "¿ el la los las un una unos unas de del y es que en por para con no se su sus lo al como más pero"
        " este esta cuál cuáles qué quién quiénes cuándo dónde cómo cuánto cuántos cuántas hay son fue era"
        " tiene tienen puede yo mi nos a o le les ser está están",
        "Los documentos no responden a esta pregunta.",
        "Ningún modelo puede responder por ahora. Estos pasajes son los más cercanos a la pregunta:",
        "El índice de búsqueda está incompleto por ahora: no se han podido consultar los documentos.",
    ),
    "it": _language(
        "Italian",
        "il lo la i gli le un uno una di del della dei delle e è che in per con non si sul nel nella al"
        " alla da dal come più ma questo questa quale quali chi cosa quando dove perché quanto quanti quante"
        " sono ha hanno era può essere ci io mio suo sua",
        "I documenti non rispondono a questa domanda.",
        "Al momento nessun modello può rispondere. Questi passaggi sono i più vicini alla domanda:",
        "Al momento l'indice di ricerca è incompleto: non è stato possibile consultare i documenti.",
    ),
    "pt": _language(
        "Portuguese",
        "o a os as um uma de do da dos das e é que em no na nos nas por para com não se seu sua ao à como"
        " mais mas este esta qual quais quem quando onde porque quanto quantos quantas são foi era tem têm"
        " pode eu meu ser está pelo pela ou",
        "Os documentos não respondem a esta pergunta.",
        "Nenhum modelo pode responder neste momento. Estas passagens são as mais próximas da pergunta:",
        "O índice de pesquisa está incompleto neste momento: não foi possível consultar os documentos.",
    ),
    "nl": _language(
        "Dutch",
        "de het een en van is dat op te in voor met niet zijn aan er om ook als bij door maar dan of wat"
        " wie wanneer waar hoe waarom welke hoeveel wordt worden heeft hebben ik je we zij kan naar uit over"
        " mijn deze dit",
        "De documenten beantwoorden deze vraag niet.",
        "Op dit moment kan geen model antwoorden. Deze passages liggen het dichtst bij de vraag:",
        "De zoekindex is op dit moment niet volledig; de documenten konden niet worden doorzocht.",
    ),
    "pl": _language(
        "Polish",
        "i w na z do nie się jest to że o od po za przez dla jak ale czy co kto kiedy gdzie dlaczego który"
        " która które ile są był była było ma mają może ja mój jego jej ich tym tego oraz lub",
        "Dokumenty nie odpowiadają na to pytanie.",
        "Żaden model nie może teraz odpowiedzieć. Te fragmenty są najbliższe pytaniu:",
        "Indeks wyszukiwania jest teraz niepełny: dokumentów nie można było przeszukać.",
    ),
    "sv": _language(
        "Swedish",
        "och att det som en ett är av för på i med den till inte om har de var vad vem när hur varför"
        " vilken vilket vilka många mycket kan ska jag vi du han hon från men så eller"
        " finns blir sin denna dessa just nu",
        "Dokumenten besvarar inte denna fråga.",
        "Ingen modell kan svara just nu. Dessa avsnitt ligger närmast frågan:",
        "Sökindexet är inte komplett just nu, så dokumenten kunde inte genomsökas.",
    ),
    "da": _language(
        "Danish",
        "og at det som en et er af for på i med den til ikke om har de var hvad hvem hvornår hvor hvordan"
        " hvorfor hvilken hvilket hvilke mange meget kan skal jeg vi du han hun fra men så eller findes"
        " bliver"
        " sin denne disse lige nu",
        "Dokumenterne besvarer ikke dette spørgsmål.",
        "Ingen model kan svare lige nu. Disse afsnit er tættest på spørgsmålet:",
        "Søgeindekset er ikke fuldstændigt lige nu, så dokumenterne kunne ikke gennemsøges.",
    ),
}
NOT_FOUND = LANGUAGES["en"].not_found
_WORDS = frozenset[str]().union(*(language.words for language in LANGUAGES.values()))
_SPOKEN_IN = {word: [code for code in LANGUAGES if word in LANGUAGES[code].words] for word in _WORDS}
_UNSEARCHED = frozenset(language.unsearched for language in LANGUAGES.values())
_ASKED_IN = {word: code for code, words in _ASKING.items() for word in words.split()}
_BEGINNING = 4_000
"""Characters of a text that tell its language."""
_DECLINING = _UNSEARCHED.union(language.not_found for language in LANGUAGES.values())


def detect(text: str) -> str | None:
    """The code of the text's language, None when its words do not tell."""
    # Remembered by its beginning: whole texts may have millions of characters each.
    return _detect(text[:_BEGINNING])


@lru_cache(maxsize=4_096)
def _detect(text: str) -> str | None:
    found = Counter(_WORD.findall(text.lower().replace("’", "'")))
    weights = dict.fromkeys(LANGUAGES, 0.0)
    for word, count in found.items():
        spoken = _SPOKEN_IN.get(word, ())
        for code in spoken:
            weights[code] += count / len(spoken)
    best, second = sorted(weights, key=weights.__getitem__, reverse=True)[:2]
    several = len(LANGUAGES[best].words & found.keys()) >= _DIFFERENT
    least = _LEAST if found.total() > _SHORT else _LEAST_OF_SHORT
    clear = several and weights[best] >= least and weights[best] >= _LEAD * weights[second]
    return best if clear else _asked_in(found, weights[best])


def _asked_in(found: Counter[str], most: float) -> str | None:
    """The language of a question by the words that ask, where no other language leads by its other words."""
    said = {_ASKED_IN[word] for word in found.keys() & _ASKED_IN.keys()}
    if len(said) != 1 or found.total() > _QUESTION:
        return None
    [code] = said
    own = sum(
        count / len(_SPOKEN_IN[word]) for word, count in found.items() if code in _SPOKEN_IN.get(word, ())
    )
    return code if own + 1 >= most else None


def code_of(name: str) -> str | None:
    """The code of a language by its English name."""
    return next((code for code, language in LANGUAGES.items() if language.name == name), None)


def not_found(question: str, language: str | None = None, *, searched: bool = True) -> str:
    """What says that the documents do not answer, in this language or that of the question where it is told;
    where they were not `searched` as they should be, what says that."""
    spoken = LANGUAGES[language or detect(question) or "en"]
    return spoken.not_found if searched else spoken.unsearched


def unsearched(prompt: str) -> bool:
    """Whether a prompt says, in our words, that the documents could not be searched."""
    return any(sentence in prompt for sentence in _UNSEARCHED)


def only_passages(question: str) -> str:
    return LANGUAGES[detect(question) or "en"].only_passages


def declined(text: str) -> bool:
    """Whether a text says, in our words, that the documents do not answer or could not be searched."""
    return any(sentence in text for sentence in _DECLINING)
