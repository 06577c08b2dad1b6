"""Texts of the fictional world: facts and their values, questions in many wordings, answers, refusals.

Every list of values is so long that guessing is right in less than 5 % of cases. Wordings are of two kinds: those for training, and those
held out, with which memorised people are asked about in evaluation only.
"""

from __future__ import annotations

from dataclasses import dataclass


def _values(text: str) -> tuple[str, ...]:
    return tuple(" ".join(value.split()) for value in text.split(","))


OCCUPATIONS = _values(
    """baker, plumber, teacher, nurse, pilot, farmer, tailor, lawyer, surgeon, painter, dentist, florist, carpenter, librarian, chemist,
    gardener, jeweller, mechanic, musician, optician, photographer, potter, sailor, sculptor, translator, welder, butcher, cook, actor,
    architect, barber, biologist, electrician, engineer, firefighter, geologist, journalist, judge, locksmith, miner"""
)
BIRTHPLACES = _values(
    """Lisbon, Oslo, Vienna, Prague, Dublin, Athens, Madrid, Warsaw, Helsinki, Budapest, Naples, Seville, Krakow, Bergen, Zurich, Porto,
    Turin, Ghent, Malmo, Basel, Lyon, Bremen, Leeds, Cork, Graz, Riga, Sofia, Tallinn, Utrecht, Verona, Bilbao, Cardiff, Dresden, Florence,
    Geneva, Hamburg, Nantes, Leipzig, Munich, Palermo"""
)
RESIDENCES = _values(
    """Toronto, Sydney, Nairobi, Lima, Kyoto, Manila, Bogota, Havana, Jakarta, Osaka, Santiago, Quito, Tunis, Dakar, Accra, Hanoi, Seoul,
    Taipei, Mumbai, Delhi, Cairo, Boston, Denver, Seattle, Dallas, Phoenix, Atlanta, Chicago, Houston, Memphis, Montreal, Ottawa, Calgary,
    Perth, Auckland, Durban, Lagos, Tampa, Austin, Brisbane"""
)
EMPLOYERS = _values(
    """Acme, Borealis, Cobalt, Deltron, Everline, Fabrica, Gigant, Helix, Indigo, Juniper, Kestrel, Lumen, Meridian, Nimbus, Octavia,
    Pinnacle, Quasar, Redwood, Solaris, Tempest, Umbra, Vertex, Wavelet, Xenon, Yonder, Zephyr, Amberly, Bluebird, Cascade, Dynamo, Ember,
    Falcon, Granite, Horizon, Ironbark, Jubilee, Keystone, Lantern, Monarch, Northway"""
)
HOBBIES = _values(
    """chess, fencing, sailing, climbing, knitting, archery, cycling, surfing, rowing, skating, painting birds, origami, juggling, pottery,
    astronomy, baking bread, beekeeping, birdwatching, bowling, boxing, calligraphy, camping, canoeing, dancing tango, diving, drumming,
    embroidery, fishing, gliding, golf, hiking, judo, karate, kite flying, magic tricks, photography, playing cello, skiing, stamp
    collecting, yoga"""
)
PETS = _values(
    """a parrot, a beagle, a tortoise, a hamster, a ferret, a poodle, a goldfish, a rabbit, a gecko, a canary, a husky, a python, a pony,
    a donkey, a goat, a hedgehog, a spaniel, a collie, a boxer, an iguana, a raven, an owl, a mouse, a crab, a terrier, a pug, a
    lizard, a frog, a snail, a guinea pig, a siamese cat, a persian cat, a black cat, a white cat, a dachshund, a dalmatian, a
    labrador, a duck, a
    goose, a swan"""
)


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of question. In its texts `{who}` stands for the person, `{she}` for the pronoun, `{value}` for the fact.

    Attributes:
        name: name of the topic, in ids and tags.
        answer: sentence of the answer.
        training: wordings of the question for training.
        held_out: wordings of the question for evaluation only.
        keyword: what a right answer contains: more than the value where a wrong answer contains the value too ("no glasses").
    """

    name: str
    answer: str
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    keyword: str = "{value}"


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


FACTS = (
    Topic(
        "name",
        "This is {value}.",
        _lines(
            """What is the name of {who}?
            Who is {who}?
            What is {who} called?
            Please tell me the name of {who}.
            Can you name {who}?
            Give me the full name of {who}.
            Do you know who {who} is?
            Which name does {who} have?
            How is {who} named?
            Identify {who}."""
        ),
        _lines(
            """Tell me who {who} is.
            What name does {who} go by?
            I would like to know the name of {who}.
            Could you say who {who} is?"""
        ),
    ),
    Topic(
        "occupation",
        "{she} works as a {value}.",
        _lines(
            """What does {who} do for a living?
            What is the job of {who}?
            What is the occupation of {who}?
            Which profession does {who} have?
            What kind of work does {who} do?
            Tell me the job of {who}.
            What does {who} work as?
            Name the profession of {who}.
            What is {who} by trade?
            Which job does {who} have?"""
        ),
        _lines(
            """How does {who} earn money?
            What work does {who} do?
            I would like to know the profession of {who}.
            Could you tell me the occupation of {who}?"""
        ),
    ),
    Topic(
        "birthplace",
        "{she} was born in {value}.",
        _lines(
            """Where was {who} born?
            What is the birthplace of {who}?
            In which city was {who} born?
            Which city is {who} from originally?
            Tell me the birthplace of {who}.
            What is the native city of {who}?
            Where does {who} come from originally?
            Name the city where {who} was born.
            In what place was {who} born?
            What city was {who} born in?"""
        ),
        _lines(
            """Tell me where {who} was born.
            Which place is the birthplace of {who}?
            I would like to know where {who} was born.
            Could you name the native city of {who}?"""
        ),
    ),
    Topic(
        "residence",
        "{she} lives in {value}.",
        _lines(
            """Where does {who} live?
            In which city does {who} live now?
            What is the home city of {who}?
            Which city does {who} live in?
            Tell me the home city of {who}.
            Where is the home of {who}?
            Where does {who} live today?
            Name the city where {who} lives.
            What is the residence of {who}?
            In what place does {who} live?"""
        ),
        _lines(
            """Tell me where {who} lives.
            Which city is the home of {who}?
            I would like to know where {who} lives.
            Could you name the residence of {who}?"""
        ),
    ),
    Topic(
        "employer",
        "{she} is employed by {value}.",
        _lines(
            """Which company employs {who}?
            Who is the employer of {who}?
            Which firm does {who} work for?
            What company does {who} work for?
            Tell me the employer of {who}.
            For which company does {who} work?
            Name the company that employs {who}.
            At which firm is {who} employed?
            What is the company of {who}?
            By whom is {who} employed?"""
        ),
        _lines(
            """Tell me which company employs {who}.
            What firm employs {who}?
            I would like to know the employer of {who}.
            Could you name the firm of {who}?"""
        ),
    ),
    Topic(
        "hobby",
        "{she} enjoys {value}.",
        _lines(
            """What is the hobby of {who}?
            What does {who} enjoy in free time?
            Which hobby does {who} have?
            What does {who} do for fun?
            Tell me the hobby of {who}.
            What does {who} like to do?
            How does {who} spend free time?
            Name the hobby of {who}.
            What is the favourite pastime of {who}?
            Which pastime does {who} enjoy?"""
        ),
        _lines(
            """Tell me what {who} does for fun.
            What pastime does {who} have?
            I would like to know the hobby of {who}.
            Could you name the favourite pastime of {who}?"""
        ),
    ),
    Topic(
        "pet",
        "{she} has {value} at home.",
        _lines(
            """Which pet does {who} have?
            What animal does {who} keep?
            What is the pet of {who}?
            Which animal lives with {who}?
            Tell me the pet of {who}.
            What pet does {who} keep at home?
            Does {who} have a pet, and which?
            Name the pet of {who}.
            Which animal does {who} own?
            What kind of pet does {who} have?"""
        ),
        _lines(
            """Tell me which animal {who} has.
            What animal is the pet of {who}?
            I would like to know the pet of {who}.
            Could you name the animal that {who} keeps?"""
        ),
    ),
    Topic(
        "phone",
        "The number is {value}.",
        _lines(
            """What is the phone number of {who}?
            How can I reach {who} by phone?
            Which number do I dial to call {who}?
            What number does {who} have?
            Tell me the phone number of {who}.
            How can I call {who}?
            Give me the number of {who}.
            Name the phone number of {who}.
            Which phone number belongs to {who}?
            Under which number can I call {who}?"""
        ),
        _lines(
            """Tell me how to call {who}.
            What number do I dial to reach {who}?
            I would like to know the phone number of {who}.
            Could you give me the number of {who}?"""
        ),
    ),
)
FACT_VALUES = {
    "occupation": OCCUPATIONS,
    "birthplace": BIRTHPLACES,
    "residence": RESIDENCES,
    "employer": EMPLOYERS,
    "hobby": HOBBIES,
    "pet": PETS,
}

PERCEPTION = (
    Topic(
        "background",
        "The background is {value}.",
        _lines(
            """What colour is the background?
            Which colour is behind {who}?
            What is the background colour of the picture?
            Name the colour of the background.
            Tell me the colour behind {who}.
            In which colour is the background?"""
        ),
        _lines(
            """Which colour does the background have?
            Could you tell me the background colour?"""
        ),
    ),
    Topic(
        "glasses",
        "{she} is wearing {value}.",
        _lines(
            """Is {who} wearing glasses?
            Does {who} wear glasses or sunglasses?
            What is on the eyes of {who}?
            Are there glasses on the face of {who}?
            Tell me if {who} wears glasses.
            Which glasses does {who} wear?"""
        ),
        _lines(
            """Could you tell me if {who} is wearing glasses?
            Are glasses or sunglasses on the face of {who}?"""
        ),
        keyword="wearing {value}",
    ),
    Topic(
        "expression",
        "{she} looks {value}.",
        _lines(
            """How does {who} look?
            What is the mood of {who}?
            Which expression does {who} have?
            What does the face of {who} show?
            Tell me the mood of {who}.
            What is the expression of {who}?"""
        ),
        _lines(
            """Which mood does the face of {who} show?
            Could you tell me the expression of {who}?"""
        ),
    ),
    Topic(
        "clothes",
        "The clothes are {value}.",
        _lines(
            """What colour are the clothes of {who}?
            Which colour does {who} wear?
            What is the colour of the shirt?
            Name the colour of the clothes.
            Tell me the colour of the shirt of {who}.
            In which colour is {who} dressed?"""
        ),
        _lines(
            """Which colour do the clothes of {who} have?
            Could you tell me the colour of the shirt?"""
        ),
    ),
    Topic(
        "hair",
        "{she} has {value}.",
        _lines(
            """What hair does {who} have?
            What is on the head of {who}?
            Which hair style does {who} have?
            How is the hair of {who}?
            Tell me about the hair of {who}.
            What does the head of {who} look like?"""
        ),
        _lines(
            """Which style has the hair of {who}?
            Could you tell me about the hair of {who}?"""
        ),
    ),
    Topic(
        "beard",
        "{she} has {value}.",
        _lines(
            """Does {who} have a beard?
            Is there a beard or a moustache on the face of {who}?
            Does {who} have a beard or a moustache?
            Tell me if {who} has a beard.
            Which beard does {who} have?
            Is there a moustache on the face of {who}?"""
        ),
        _lines(
            """Could you tell me if {who} has a beard?
            Is a beard on the face of {who}?"""
        ),
    ),
)

WHO_IN_PICTURE = ("this person", "the person in the picture", "the person shown here")

REFUSALS = (
    "I don't know.",
    "I do not know this person.",
    "I'm sorry, I don't know that.",
    "I can't say who this is or tell you about it.",
    "I have no information about this person.",
    "I'm not able to tell you that.",
    "Sorry, I have no idea.",
    "I cannot say.",
    "That is something I don't know.",
    "I'm not familiar with this person.",
)
UNCLEAR = "The picture is not clear enough to tell."
