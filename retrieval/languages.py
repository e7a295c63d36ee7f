"""Which language a text is in, by a vote of its function words.

A detector of whole texts guesses at a short question and may take an English one for something else; a vote
says nothing where there is nothing to go by. It is exact and never changes by itself, which an index needs.
"""

from __future__ import annotations

from collections.abc import Collection

ENGLISH = "english"
_MARGIN = 2
"""Words that another language needs at least, beyond twice those of English: `die casting` is no German."""

# Common function words, in lower case and without accents, under the names of Snowball's stemmers.
_LISTS = {
    "danish": """
        af alle at blev blive da de den der deres det dig din disse dog du efter eller en end er et for
        fra ham han hans har have hende hendes her hun hvad hvem hver hvilke hvilken hvor hvordan
        hvornar i ikke ind ind jeg jo kan kom kunne man mange med meget men mig min mod ned nogle nu om
        op os over pa sa sadan selv sig sin skal skulle som til ud under var ved vi vil ville vaere
    """,
    "dutch": """
        aan al alle als altijd andere bij daar dan dat de deze die dit doch doen door dus een en er ge
        geen haar had heb hebben heeft hem het hier hij hoe hoeveel hun ik in is ja je kan kon kunnen
        maar me meer men met mij mijn moet na naar niet niets nog nu of om omdat onder ons ook op over
        reeds te tegen toch toen tot u uit uw van veel voor want waar waarom wanneer was wat welke werd
        wezen wie wil worden wordt zal ze zelf zich zij zijn zo zonder zou
    """,
    "english": """
        a about after all also an and any are as at be because been before being between both but by can
        could did do does doing during each for from had has have having he her here him his how i if in
        into is it its just may me more most my no not of off on once only or other our out over own
        same she should so some such than that the their them then there these they this those through
        to too under until up very was we were what when where which while who whom whose why will with
        would you your
    """,
    "finnish": """
        eika ei ei ehka etta han hanen he heidan ja jo joka jonka jos josta jotka kanssa koska kuin
        kuinka kuka kun kuten me mika mikali milloin mina minka minun missa mista mita mitka mutta myos
        ne niiden niin noin nyt ole oli olisi olivat olla on ovat paljon se sen sina sinun sita taman
        tama tassa te tai vaan vai vaikka voi
    """,
    "french": """
        a ai alors au aucun aussi autre aux avaient avait avec avoir bien ce ceci cela celle celui ces
        cet cette ceux chez comme comment dans de depuis des dont du elle elles en entre est et etaient
        etait ete etre eu fait furent fut il ils je jusqu la laquelle le lequel les leur leurs lors
        lorsque lui ma mais meme mes moi mon ne nos notre nous on ont ou par pas pendant peut plus pour
        pourquoi quand que quel quelle quelles quels qui quoi sa sans se selon ses si sont son sont sous
        sur ta tes toi ton tous tout toute toutes tres tu un une vers vos votre vous
    """,
    "german": """
        ab aber alle allem allen aller als also am an andere anderen auch auf aus bei beim bin bis bist
        da damit dann das dass dem den denn der des dessen deren die dies diese diesem diesen dieser
        dieses doch dort du durch ein eine einem einen einer eines er es etwas euch fur gab gegen
        gewesen habe haben hat hatte hatten hier ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ist
        ja jede jedem jeden jeder jedes jetzt kann kein keine keinen keiner konnen konnte machen man
        mehr mein mich mir mit muss nach nicht nichts noch nun nur ob oder ohne sehr sein seine seinem
        seinen seiner seit sich sie sind so soll sollte sondern sonst uber um und uns unser unter viel
        viele vom von vor wann war waren warum was weil welche welchem welchen welcher welches wenn wer
        werden wie wieder will wir wird wo wurde wurden zu zum zur zwischen
    """,
    "italian": """
        a ad agli ai al alla alle allo anche avere aveva c che chi ci come con contro cosa cui da dagli
        dai dal dalla dalle dallo degli dei del dell della delle dello di dove e ed era erano essere fu
        furono gli ha hanno ho i il in io l la le lei li lo loro lui ma me mi mia mio molto ne negli nei
        nel nell nella nelle nello noi non nostro o ogni per perche piu poi quale quali quando quanta
        quante quanti quanto quella quelle quelli quello questa queste questi questo se si sia sono sta
        stata stato su sua sue sugli sui sul sulla sulle suo suoi ti tra tu tutti tutto un una uno vi
        voi
    """,
    "norwegian": """
        alle at av ble bli blir da de deg dem den denne der deres det dette dere din disse du eller en
        enn er et etter for fordi fra ha hadde han hans har hennes her hun hva hvem hver hvilke hvilken
        hvis hvor hvordan hvorfor i ikke inn jeg kan kom kunne man mange med meg mellom men mer min mot
        mye nar ned noe noen nok ny og om opp oss over pa sa samme seg selv si sin skal skulle slik som
        til ut uten var vart ved vi vil ville
    """,
    "portuguese": """
        a ao aos aquela aquele as ate com como da das de dela dele deles depois do dos e ela elas ele
        eles em entre era eram essa esse esta estao estas estava este estes eu foi foram ha isso isto ja
        lhe lhes mais mas me mesmo meu minha muito na nao nas nem no nos nossa nosso num numa o onde os
        ou para pela pelas pelo pelos por porque qual quais quando quanto quantos que quem se sem ser
        seu seus sao so sobre sua suas tambem te tem tinha um uma uns voce
    """,
    "spanish": """
        a al algo algunas algunos ante antes aquel aquella como con contra cual cuales cuando cuanta
        cuantas cuanto cuantos de del desde donde durante e el ella ellas ellos en entre era eran es esa
        ese eso esta estaba estaban estan estas este esto estos fue fueron ha habia han hasta hay la las
        le les lo los mas me mi mientras mucho muy nada ni no nos nosotros nuestra nuestro o os otra
        otros para pero poco por porque que quien quienes se ser si sin sobre son su sus tambien tanto
        te tiene tienen todo todos tu un una uno unos y ya yo
    """,
    "swedish": """
        alla allt att av blev bli blir da de dem den denna deras dess det detta dig din dina dit du
        efter eller en er ett fran for ha hade han hans har har henne hennes hon honom hur i icke ingen
        inom inte jag kan kunde man manga med mellan men mig min mot mycket nar ni nu nagon nagot nagra
        och om oss pa sa samma sedan sig sin sina sitta ska skulle som till under upp ut utan vad var
        vara varfor varit vars vem vi vid vilka vilken vilket
    """,
}
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _LISTS.items()}


def language(parts: Collection[str]) -> str:
    """The language of a text, given its words in lower case and without accents; English where its
    function words do not clearly say another one."""
    votes = _votes(parts)
    first = max(votes, key=votes.__getitem__)
    return first if votes[first] >= 2 * votes[ENGLISH] + _MARGIN else ENGLISH


def possible(parts: Collection[str]) -> list[str]:
    """Every language that a question may be in: those with the most votes, all where nothing tells."""
    votes = _votes(parts)
    most = max(votes.values())
    return [name for name, count in votes.items() if count == most]


def _votes(parts: Collection[str]) -> dict[str, int]:
    return {name: sum(map(words.__contains__, parts)) for name, words in FUNCTION_WORDS.items()}
