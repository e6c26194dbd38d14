"""Other ways to say what traces of the built-in world say: the wordings of the labelled set that judges are audited on.

They were written before what the rules can read beyond the world's own grammar. Those rules were then developed on the
part 'dev' of each list; the part 'held', the other half, was only ever counted. SECOND was written when the rules were
done, in two lots, each counted once (docs/signals.md has the figures) and then developed on; so was BLIND, later. The
parts after it are by other authors (`world_wordings_others`, `world_wordings_unseen`).

Placeholders: {a}, {b}, {c} are names with an article ('the red circle'), {A}, {B} the same at the start of a sentence,
{box} a <bbox>, and the rest are words of the relation from the tables below.
"""

from __future__ import annotations

import zlib

PARTS = ("dev", "held", "second", "blind")

HORIZONTAL = (
    "To the {side} of {b} you find {a}.",
    "{A} sits further {side} than {b}.",
    "{B} has {a} on its {side}.",
    "Going from {b} towards the {side}, one meets {a}.",
    "{A} can be found on the {side}-hand side of {b}.",
    "Compared with {b}, {a} is more to the {side}.",
    "It is {a} that lies on the {side} of {b}.",
    "Of {a} and {b}, the one further to the {side} is {a}.",
    "Seen from {b}, {a} is on the {side}.",
    "The position of {a} is {side} of that of {b}.",
    "On the {side} of {b} there is {a}.",
    "Relative to {b}, {a} has been placed to the {side}.",
    "{B} is flanked on its {side} by {a}.",
    "Moving {side}wards from {b} brings us to {a}.",
    "Reading from {side} to {other}, {a} comes before {b}.",
    "{A} is nearer the {side} edge than {b}.",
    "Between the two, {a} is the {side} one and {b} the {other} one.",
    "{A} is situated {side} of where {b} is.",
)
VERTICAL = (
    "{A} is {higher} in the picture than {b}.",
    "{Above} {b} you find {a}.",
    "{B} has {a} {above} it.",
    "Going {up} from {b}, one meets {a}.",
    "Compared with {b}, {a} sits further {up}.",
    "{A} is nearer the {top} edge than {b}.",
    "Of {a} and {b}, the {higher} one is {a}.",
    "Seen from {b}, {a} is {above}.",
    "{A} occupies a {higher} position than {b}.",
    "It is {a} that lies {above} {b}.",
    "{A} has been drawn {above} {b}.",
    "Look {above} {b} and there is {a}.",
    "Relative to {b}, {a} is placed {higher}.",
    "{A} is closer to the {top} of the image than {b} is.",
    "Reading from {top} to {bottom}, {a} comes before {b}.",
    "{B} lies {below} {a}.",
    "Of the pair {a} and {b}, {b} is the {lower} one.",
    "Directly or not, {a} is somewhere {above} {b}.",
)
SIZE = (
    "Of {a} and {b}, the {bigger} one is {a}.",
    "{A} takes up {more} room than {b}.",
    "{A} covers a {larger} area than {b}.",
    "Compared with {b}, {a} is {bigger}.",
    "{B} is not as {big} as {a}.",
    "{A} has {greater} dimensions than {b}.",
    "In size {a} {exceeds} {b}.",
    "It is {a} that is {bigger} than {b}.",
    "{B} is {smaller} than {a}.",
    "{A} is the {bigger} of the two, {b} the {smaller}.",
    "Next to {b}, {a} looks {larger}.",
    "Of the two the {bigger} one is {a}, since {b} is {smaller}.",
)
NEAREST = (
    "No object is {nearer} {to} {r} than {a}.",
    "Of all the objects, {a} has the {shortest} distance to {r}.",
    "The object with the {smallest} distance to {r} is {a}.",
    "Measured from {r}, {a} is the {nearest}.",
    "Everything else is {farther} {tofar} {r} than {a} is.",
    "Among the shapes, it is {a} that lies {nearest} {to} {r}.",
    "The {nearest} object as seen from {r} is {a}.",
    "{A} has the {smallest} gap to {r} of all the objects.",
    "The distance from {r} is {smallest} for {a}.",
    "Nothing lies {nearer} {to} {r} than {a} does.",
)
BETWEEN = (
    "{A} has {b} on one side and {c} on the other.",
    "On the way from {b} to {c} one passes {a}.",
    "{A} separates {b} from {c}.",
    "The line joining {b} and {c} runs through {a}.",
    "{B} and {c} have {a} in the middle.",
    "{A} sits in the gap separating {b} and {c}.",
    "{A} is flanked by {b} and {c}.",
    "{B} and {c} lie on either side of {a}.",
    "In the middle of {b} and {c} is {a}.",
    "One finds {a} in the space between {b} and {c}.",
)
INSIDE = (
    "{B} encloses {a}.",
    "{A} is enclosed by {b}.",
    "{A} lies within the outline of {b}.",
    "{B} surrounds {a} on all sides.",
    "You find {a} in the interior of {b}.",
    "{A} is completely contained by {b}.",
    "All of {a} is in {b}.",
    "{B} has {a} in it.",
    "{A} is surrounded by {b}.",
    "It is {a} that is drawn inside {b}.",
)
COUNT = (
    "Counting the {kinds}, I get {n}.",
    "The {kinds} number {n}.",
    "{N} {nkinds} can be seen in the picture.",
    "The total of {kinds} comes to {n}.",
    "I count {n} {nkinds} altogether.",
    "In total {n} {nkinds} appear.",
    "That makes {n} {nkinds}.",
    "The picture shows {n} {nkinds} in all.",
    "As for {kinds}, I find {n}.",
    "The number of {kinds} in the image is {n}.",
)
EXISTS = (
    "{An} can be seen.",
    "One of the objects is {an}.",
    "Somewhere in the picture is {an}.",
    "The picture includes {an}.",
    "Among the shapes is {an}.",
    "I spot {an}.",
    "We also have {an} here.",
    "{An} appears too.",
)
AT = (
    "{A} occupies {box}.",
    "At {box} we have {a}.",
    "The box of {a} is {box}.",
    "{A} spans {box}.",
    "I find {a} in {box}.",
    "The region {box} contains {a}.",
    "{box} marks where {a} is.",
    "{A} has the bounding box {box}.",
    "In {box} sits {a}.",
    "Look at {a} in {box}.",
    "{A} is what {box} shows.",
    "{A} goes from corner to corner of {box}.",
)
DENIALS = (
    "It isn't true that {claim}.",
    "It is wrong to say that {claim}.",
    "It is not the case that {claim}.",
    "One can't say that {claim}.",
    "It would be false to claim that {claim}.",
    "I don't see that {claim}; it is not so.",
)
CONCLUSIONS = (
    "So the answer must be {o}.",
    "Hence I choose {L}.",
    "That makes {o} the right choice.",
    "Option {L} is therefore correct.",
    "I'll go with {o}.",
    "This leads to the answer {o}.",
    "My pick is {L}.",
    "Therefore I answer {o}.",
    "The best fit is option {L}.",
    "This points to option {L}.",
    "Consequently, {o} is right.",
    "Thus ({L}) is the one to select.",
    "That gives {o} as the answer.",
    "All of this speaks for {L}.",
)
ELIMINATIONS = (
    "It can't be {o}.",
    "Option {L} is ruled out.",
    "{o} is certainly wrong.",
    "We can exclude {L}.",
    "The answer is not {o}.",
    "That leaves {o} out.",
)
HEDGES = (
    "It could be {o} or {p}.",
    "Perhaps {o}, perhaps {p}; hard to tell.",
    "I can't tell whether it is {o} or {p}.",
    "Either {o} or {p} would fit.",
    "Both {o} and {p} seem possible.",
    "Without a closer look, {o} and {p} are equally likely.",
)
CORRECTIONS = (
    "Wait, that's not right: {claim}.",
    "Actually, no: {claim}.",
    "On second thought, {claim}.",
    "Let me correct that: {claim}.",
    "No, I misread it; in fact {claim}.",
    "Hold on, {claim}.",
)
IDLE = (
    "Let me think this through.",
    "I'll go step by step.",
    "The question is about the objects of this picture.",
    "This requires some care.",
    "Okay, let me look at each object in turn.",
    "Now I compare what I know.",
    "First I want to locate everything that matters.",
    "Let me look at the left side of the image first.",
    "With that settled, on to the comparison.",
    "To decide this, I should check the positions.",
    "That should be enough to tell.",
    "I need to find the objects that the question names.",
)

SIDES = {
    "left": {"side": "left", "other": "right"},
    "right": {"side": "right", "other": "left"},
    "above": {
        "higher": "higher",
        "above": "above",
        "Above": "Above",
        "up": "up",
        "top": "top",
        "bottom": "bottom",
        "below": "below",
        "lower": "lower",
        "down": "down",
    },
    "below": {
        "higher": "lower",
        "above": "below",
        "Above": "Below",
        "up": "down",
        "top": "bottom",
        "bottom": "top",
        "below": "above",
        "lower": "higher",
        "down": "up",
    },
}
SIZES = {
    "larger": {
        "bigger": "bigger",
        "more": "more",
        "larger": "larger",
        "big": "big",
        "greater": "greater",
        "exceeds": "exceeds",
        "smaller": "smaller",
    },
    "smaller": {
        "bigger": "smaller",
        "more": "less",
        "larger": "smaller",
        "big": "small",
        "greater": "smaller",
        "exceeds": "falls short of",
        "smaller": "bigger",
    },
}
DISTANCES = {
    "nearest": {
        "near": "near",
        "nearer": "nearer",
        "to": "to",
        "shortest": "shortest",
        "smallest": "smallest",
        "nearest": "nearest",
        "farther": "farther",
        "tofar": "from",
    },
    "farthest": {
        "near": "far",
        "nearer": "farther",
        "to": "from",
        "shortest": "greatest",
        "smallest": "largest",
        "nearest": "farthest",
        "farther": "nearer",
        "tofar": "to",
    },
}


SECOND: dict[tuple[str, ...], tuple[str, ...]] = {
    HORIZONTAL: (
        "{A} stands {side} of {b}.",
        "Look to the {side} of {b}: there is {a}.",
        "With respect to {b}, {a} is the object on the {side}.",
        "{A} lies farther towards the {side} border than {b} does.",
        "One has to move {other} from {a} to get to {b}.",
        "Your eyes wander {side} from {b} until they meet {a}.",
        "{B} is located on the {other} of {a}.",
        "Next to {b}, on its {side}, is {a}.",
        "{A} has its place to the {side} of {b}.",
        "Walk {side} from {b} and you end up at {a}.",
        "When you compare the two, {a} is further {side} and {b} further {other}.",
        "The thing on the {side} of {b} is {a}.",
    ),
    VERTICAL: (
        "{A} is drawn {higher} than {b}.",
        "{B} can be seen {below} {a}.",
        "Scanning from {top} to {bottom}, one sees {a} first and then {b}.",
        "{A} hangs {above} {b}.",
        "The vertical position of {a} is {higher} than the one of {b}.",
        "{B} lies further {down} than {a}.",
        "{A} can be found {above} {b}.",
        "{A} floats {above} {b}.",
        "In height, {a} is {higher} than {b}.",
        "The {higher} of {a} and {b} is {a}.",
        "You have to look {up} from {b} to see {a}.",
        "{B} is situated {below} {a}.",
    ),
    SIZE: (
        "{A} is the {bigger} object when put beside {b}.",
        "{B} is {smaller} in comparison with {a}.",
        "Between {a} and {b}, {a} has the {larger} area.",
        "Measured by area, {a} comes out {bigger} than {b}.",
        "{A} clearly has the {bigger} surface, {b} the {smaller}.",
        "I judge {a} to be {bigger} than {b}.",
        "{B} appears {smaller} than {a}.",
        "As to size, {a} is {bigger} than {b}.",
    ),
    NEAREST: (
        "You will not find anything {nearer} {to} {r} than {a}.",
        "{A} is the object with the {shortest} way to {r}.",
        "Seen from {r}, nothing is {nearer} than {a}.",
        "The {nearest} thing {to} {r} is {a}.",
        "The object that lies {nearest} {to} {r} is {a}.",
        "{A} is {nearest} {to} {r} among all objects.",
        "All other objects are {farther} {tofar} {r} than {a}.",
        "There is no object {nearer} {to} {r} than {a}.",
    ),
    BETWEEN: (
        "{A} lies somewhere on the stretch from {b} to {c}.",
        "{B} is on one side of {a}, {c} on the other side.",
        "{A} is wedged between {b} and {c}.",
        "Connecting {b} with {c} one crosses {a}.",
        "{B}, then {a}, then {c}: that is the order.",
        "{A} stands in the middle of {b} and {c}.",
        "{A} keeps {b} and {c} apart.",
        "Somewhere between {b} and {c} there is {a}.",
    ),
    INSIDE: (
        "{A} fits entirely into {b}.",
        "{B} goes all around {a}.",
        "Within {b} one can see {a}.",
        "{A} is placed in {b}.",
        "{A} is located within {b}.",
        "{B} contains {a} completely.",
        "{A} does not stick out of {b}, it is inside it.",
        "Inside {b} I see {a}.",
    ),
    COUNT: (
        "Altogether, the scene has {n} {nkinds}.",
        "{N} is the number of {kinds}.",
        "One can count {n} {nkinds} here.",
        "I can make out {n} {nkinds}.",
        "My count of {kinds} is {n}.",
        "Exactly {n} {nkinds} can be seen.",
        "We have {n} {nkinds} in this scene.",
        "In the picture, in total, I see {n} {nkinds}.",
    ),
    EXISTS: (
        "There happens to be {an}.",
        "I can make out {an}.",
        "The scene contains {an}.",
        "You can also see {an}.",
        "{An} is there.",
        "I notice {an}.",
        "In the image there is {an}.",
        "{An} is part of the picture.",
    ),
    AT: (
        "{A} fills {box}.",
        "Inside {box} there is {a}.",
        "{box}: that is {a}.",
        "I locate {a} at {box}.",
        "{A}: {box}.",
        "{A} can be found at {box}.",
        "{box} is the place of {a}.",
        "The bounding box around {a} reads {box}.",
    ),
    DENIALS: (
        "No, it isn't so that {claim}.",
        "The statement that {claim} is not true.",
        "I deny that {claim}.",
        "It is false that {claim}.",
        "I would not say that {claim}.",
        "Clearly it is not true that {claim}.",
    ),
    CONCLUSIONS: (
        "Everything points to {o}, so that is my answer.",
        "I settle on {L}.",
        "Answer: {L}.",
        "So {o} is what I answer.",
        "My final choice is {o}.",
        "With that, {L} wins.",
        "The right option is {L}.",
        "So I pick {o}.",
        "This means {o}.",
        "In the end I go for ({L}).",
        "Final answer: {o}.",
        "Therefore {L} must be right.",
    ),
    ELIMINATIONS: (
        "{o} does not work.",
        "It is certainly not {o}.",
        "{L} drops out.",
        "So not {o}.",
        "{L} is wrong.",
        "We can cross out {L}.",
    ),
    HEDGES: (
        "I am torn between {o} and {p}.",
        "{o} or {p}, I am not sure.",
        "Whether {o} or {p}, I cannot say.",
        "It may be {o}, it may be {p}.",
        "Maybe {o}, or maybe {p}.",
        "Both {o} and {p} are possible answers.",
    ),
    CORRECTIONS: (
        "Looking closer, {claim}.",
        "Oh, that was wrong; {claim}.",
        "I take that back, {claim}.",
        "Correction: {claim}.",
        "No, wait, {claim}.",
        "I made a mistake: {claim}.",
    ),
    IDLE: (
        "Let's see what is asked.",
        "I start with the objects named.",
        "Here comes the deciding step.",
        "Time to compare the objects.",
        "I will check the picture first.",
        "This is straightforward.",
    ),
}
"""Wordings written after the first rules were done, by list."""
BLIND: dict[tuple[str, ...], tuple[str, ...]] = {
    HORIZONTAL: (
        "{A} rests {side} of {b}.",
        "{A} is {side} and {b} is {other}.",
        "Facing the picture, one sees {a} to the {side} of {b}.",
        "If anything, {a} is {side} of {b}.",
        "The {side} one of the pair is {a}, the {other} one is {b}.",
        "{B} has its {side} side towards {a}.",
    ),
    VERTICAL: (
        "{A} shows up {above} {b}.",
        "{B} is {lower} than {a} in the image.",
        "The spot of {a} is {above} the spot of {b}.",
        "Going {down} from {a} leads to {b}.",
    ),
    SIZE: (
        "{A} is of {larger} size than {b}.",
        "Compared to {a}, {b} is {smaller}.",
        "{A} is {bigger} and {b} {smaller}.",
        "Of both, {a} has the {larger} area.",
    ),
    NEAREST: (
        "For {r} the {nearest} object is {a}.",
        "{A} has the {shortest} distance of all to {r}.",
        "No other object is as {near} {to} {r} as {a}.",
        "{A} is {nearer} {to} {r} than any other object.",
    ),
    BETWEEN: (
        "{A} is found between {b} and {c}.",
        "{A} blocks the way from {b} to {c}.",
        "To get from {b} to {c} one goes past {a}.",
    ),
    INSIDE: ("{A} is an object within {b}.", "{A} is drawn in the area of {b}.", "{B} includes {a}."),
    COUNT: ("I arrive at {n} {nkinds}.", "{N} {nkinds} show up.", "The {kinds} add up to {n}."),
    EXISTS: ("{An} shows up.", "There's also {an}.", "Then there is {an}."),
    AT: ("{A} covers {box}.", "For {a} the box is {box}.", "{A} starts and ends in {box}."),
    DENIALS: ("It cannot be said that {claim}.", "It's untrue that {claim}."),
    CONCLUSIONS: ("I answer {o}.", "So {L} is correct.", "That is why I choose {o}.", "The answer: {o}."),
    ELIMINATIONS: ("The answer can't be {L}.", "{o} is not it."),
    HEDGES: ("I'd say {o} or {p}.", "It's either {o} or {p}."),
    CORRECTIONS: ("Hmm, no: {claim}.", "Actually, {claim}."),
    IDLE: ("I look at the objects one after the other.", "So what do we have?"),
}
"""Wordings written after those, by list."""


def part_of(wordings: tuple[str, ...], part: str) -> tuple[str, ...]:
    """The wordings of a part: for 'dev' and 'held' every other one of a list in the order of their checksums.

    Raises:
      ValueError: unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r} of the wordings; one of {', '.join(PARTS)}")
    if part in ("second", "blind"):
        return (SECOND if part == "second" else BLIND)[wordings]
    order = sorted(wordings, key=lambda wording: zlib.crc32(wording.encode()))
    return tuple(order[PARTS.index(part) :: 2])
