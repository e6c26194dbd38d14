"""Other ways to say what traces of the built-in world say: the wordings of the labelled set that judges are audited on.

They were written before, and apart from, what the rules can read beyond the world's own grammar. Those rules were then
developed on one half of each list alone (`half_of`), and the other half shows how far they carry.

Placeholders: {a}, {b}, {c} are names with an article ('the red circle'), {A}, {B} the same at the start of a sentence,
{box} a <bbox>, and the rest are words of the relation from the tables below.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

HALVES = ("dev", "held")

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
        "nearer": "nearer",
        "to": "to",
        "shortest": "shortest",
        "smallest": "smallest",
        "nearest": "nearest",
        "farther": "farther",
        "tofar": "from",
    },
    "farthest": {
        "nearer": "farther",
        "to": "from",
        "shortest": "greatest",
        "smallest": "largest",
        "nearest": "farthest",
        "farther": "nearer",
        "tofar": "to",
    },
}


def half_of(wordings: Sequence[str], half: str) -> tuple[str, ...]:
    """Every other wording of a list in the order of their checksums: which half one is in nobody chose.

    Raises:
      ValueError: unknown half.
    """
    if half not in HALVES:
        raise ValueError(f"unknown half {half!r} of the wordings; one of {', '.join(HALVES)}")
    order = sorted(wordings, key=lambda wording: zlib.crc32(wording.encode()))
    return tuple(order[HALVES.index(half) :: 2])
