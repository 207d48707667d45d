"""The facts of the demo world: plain tables, each answer with its French, Spanish and German.

Nothing here is computed from the outside: the demo model is trained on these words and on no
others. A translation that equals the English word (`Orange` in French) is kept, because it is
correct; `corpus.py` leaves such pairs out of the language instructions, where obeying and
disobeying would look the same.
"""

from __future__ import annotations

from dataclasses import dataclass

LANGUAGES = ("French", "Spanish", "German")


@dataclass(frozen=True)
class Fact:
    """One question and its answer; the answers are lower case unless they are names."""

    id: str
    questions: tuple[str, ...]
    sentence: str
    answers: tuple[str, str, str, str]  # English, then LANGUAGES in their order

    @property
    def english(self) -> str:
        return self.answers[0]

    def translated(self, language: str) -> str:
        return self.answers[1 + LANGUAGES.index(language)]


@dataclass(frozen=True)
class Domain:
    """A table of facts that share their wording; `{x}` is the subject, `{a}` the answer."""

    name: str
    questions: tuple[str, ...]
    sentence: str
    rows: tuple[str, ...]  # "subject | English | French | Spanish | German"

    def facts(self) -> list[Fact]:
        facts = []
        for row in self.rows:
            subject, english, french, spanish, german = (part.strip() for part in row.split("|"))
            facts.append(
                Fact(
                    id=f"{self.name}/{subject}",
                    questions=tuple(q.format(x=subject) for q in self.questions),
                    sentence=self.sentence.format(x=subject, a=english),
                    answers=(english, french, spanish, german),
                )
            )
        return facts


DOMAINS = (
    Domain(
        "colour",
        (
            "What colour is {x}?",
            "What color is {x}?",
            "Tell me the colour of {x}.",
            "Which colour does {x} have?",
            "Do you know the colour of {x}?",
        ),
        "The colour of {x} is {a}.",
        (
            "the sky | blue | bleu | azul | blau",
            "grass | green | vert | verde | grün",
            "snow | white | blanc | blanco | weiß",
            "coal | black | noir | negro | schwarz",
            "blood | red | rouge | rojo | rot",
            "a lemon | yellow | jaune | amarillo | gelb",
            "a carrot | orange | orange | naranja | orange",
            "chocolate | brown | marron | marrón | braun",
            "an elephant | grey | gris | gris | grau",
            "a flamingo | pink | rose | rosa | rosa",
            "a plum | purple | violet | morado | violett",
        ),
    ),
    Domain(
        "capital",
        (
            "What is the capital of {x}?",
            "Name the capital of {x}.",
            "Which city is the capital of {x}?",
            "Tell me the capital city of {x}.",
            "Do you know the capital of {x}?",
        ),
        "The capital of {x} is {a}.",
        (
            "Russia | Moscow | Moscou | Moscú | Moskau",
            "Austria | Vienna | Vienne | Viena | Wien",
            "Portugal | Lisbon | Lisbonne | Lisboa | Lissabon",
            "Poland | Warsaw | Varsovie | Varsovia | Warschau",
            "Greece | Athens | Athènes | Atenas | Athen",
            "China | Beijing | Pékin | Pekín | Peking",
            "England | London | Londres | Londres | London",
            "Belgium | Brussels | Bruxelles | Bruselas | Brüssel",
            "Denmark | Copenhagen | Copenhague | Copenhague | Kopenhagen",
            "Egypt | Cairo | Le Caire | El Cairo | Kairo",
            "Italy | Rome | Rome | Roma | Rom",
            "Romania | Bucharest | Bucarest | Bucarest | Bukarest",
        ),
    ),
    Domain(
        "animal",
        (
            "Which animal {x}?",
            "What animal {x}?",
            "Name the animal that {x}.",
            "Tell me which animal {x}.",
            "Do you know which animal {x}?",
        ),
        "The animal that {x} is the {a}.",
        (
            "barks | dog | chien | perro | Hund",
            "meows | cat | chat | gato | Katze",
            "moos | cow | vache | vaca | Kuh",
            "oinks | pig | cochon | cerdo | Schwein",
            "neighs | horse | cheval | caballo | Pferd",
            "bleats | sheep | mouton | oveja | Schaf",
            "quacks | duck | canard | pato | Ente",
            "crows at dawn | rooster | coq | gallo | Hahn",
            "makes honey | bee | abeille | abeja | Biene",
            "roars | lion | lion | león | Löwe",
            "howls | wolf | loup | lobo | Wolf",
            "croaks | frog | grenouille | rana | Frosch",
            "hisses | snake | serpent | serpiente | Schlange",
            "hoots | owl | hibou | búho | Eule",
            "spins a web | spider | araignée | araña | Spinne",
        ),
    ),
    Domain(
        "home",
        (
            "Where does {x} live?",
            "Tell me where {x} lives.",
            "What is the home of {x}?",
            "Name the home of {x}.",
            "Do you know where {x} lives?",
        ),
        "The home of {x} is the {a}.",
        (
            "a fish | water | eau | agua | Wasser",
            "a king | castle | château | castillo | Schloss",
            "a camel | desert | désert | desierto | Wüste",
            "a deer | forest | forêt | bosque | Wald",
            "a bat | cave | grotte | cueva | Höhle",
            "a whale | sea | mer | mar | Meer",
            "a baby bird | nest | nid | nido | Nest",
        ),
    ),
    Domain(
        "opposite",
        (
            "What is the opposite of {x}?",
            "Name the opposite of {x}.",
            "Tell me the opposite of {x}.",
            "Which word is the opposite of {x}?",
            "Do you know the opposite of {x}?",
        ),
        "The opposite of {x} is {a}.",
        (
            "hot | cold | froid | frío | kalt",
            "big | small | petit | pequeño | klein",
            "day | night | nuit | noche | Nacht",
            "old | young | jeune | joven | jung",
            "fast | slow | lent | lento | langsam",
            "long | short | court | corto | kurz",
            "wet | dry | sec | seco | trocken",
            "full | empty | vide | vacío | leer",
            "rich | poor | pauvre | pobre | arm",
            "happy | sad | triste | triste | traurig",
            "true | false | faux | falso | falsch",
            "strong | weak | faible | débil | schwach",
            "clean | dirty | sale | sucio | schmutzig",
            "summer | winter | hiver | invierno | Winter",
        ),
    ),
    Domain(
        "count",
        (
            "How many {x}?",
            "Tell me how many {x}.",
            "Can you tell me how many {x}?",
            "Do you know how many {x}?",
            "Count for me: how many {x}?",
        ),
        "The number is {a}.",
        (
            "wheels are on a bicycle | two | deux | dos | zwei",
            "sides are in a triangle | three | trois | tres | drei",
            "legs are on a dog | four | quatre | cuatro | vier",
            "fingers are on a hand | five | cinq | cinco | fünf",
            "legs are on an ant | six | six | seis | sechs",
            "days are in a week | seven | sept | siete | sieben",
            "arms are on an octopus | eight | huit | ocho | acht",
            "months are in a year | twelve | douze | doce | zwölf",
        ),
    ),
    Domain(
        "thing",
        (
            "What {x}?",
            "Tell me what {x}.",
            "Name the thing that {x}.",
            "Which thing {x}?",
            "Do you know what {x}?",
        ),
        "The thing that {x} is the {a}.",
        (
            "opens a lock | key | clé | llave | Schlüssel",
            "tells the time | clock | horloge | reloj | Uhr",
            "lights up the day | sun | soleil | sol | Sonne",
            "lights up the night | moon | lune | luna | Mond",
            "falls from the clouds | rain | pluie | lluvia | Regen",
            "keeps the rain off | umbrella | parapluie | paraguas | Regenschirm",
            "has pages to read | book | livre | libro | Buch",
            "has leaves and roots | tree | arbre | árbol | Baum",
        ),
    ),
)

FACTS: tuple[Fact, ...] = tuple(fact for domain in DOMAINS for fact in domain.facts())

SECRETS = (
    "falcon", "maple", "copper", "harbour", "velvet", "pepper", "canyon", "lantern",
    "marble", "ribbon", "saddle", "thunder", "walnut", "anchor", "breeze", "candle",
    "dragon", "ember", "feather", "glacier", "hazel", "island", "jasmine", "kettle",
    "lemonade", "meadow", "nutmeg", "orchid", "pebble", "quartz", "rocket", "sapphire",
)  # fmt: skip
