"""Ways to say what the labelled set says, none of them the built-in world's own sentence for it.

They give a judge the variety of free English. No rule reads them, and none should be written to.

In a wording {a}, {b} and {c} are names with an article ('the red circle'), {an} the same with 'a' or 'an', {box} a
<bbox>, {n} a number and {kinds} what is counted ({nkinds} in the singular where the number is one). {o} and {p} are
the texts of options, {L} the letter of {o}, and {claim} a clause. Every other word in braces means itself, and
stands for its partner in OPPOSITES where the opposite relation is said.
"""

from __future__ import annotations

WORDINGS: dict[str, tuple[str, ...]] = {
    "left": (
        "To the {left} of {b} you find {a}.",
        "{b} has {a} on its {left}.",
        "Compared with {b}, {a} is more to the {left}.",
        "Of {a} and {b}, the one further to the {left} is {a}.",
        "The position of {a} is {left} of that of {b}.",
        "Moving {left}wards from {b} brings us to {a}.",
        "Reading from {left} to {right}, {a} comes before {b}.",
        "{a} is nearer the {left} edge than {b}.",
        "One has to move {right} from {a} to get to {b}.",
        "Between the two, {a} is the {left} one and {b} the {right} one.",
    ),
    "above": (
        "{a} is {higher} in the picture than {b}.",
        "{above} {b} you find {a}.",
        "Going {up} from {b}, one meets {a}.",
        "{a} is nearer the {top} edge than {b}.",
        "Of {a} and {b}, the {higher} one is {a}.",
        "Reading from {top} to {bottom}, {a} comes before {b}.",
        "Of the pair {a} and {b}, {b} is the {lower} one.",
        "{b} lies further {down} than {a}.",
        "{b} can be seen {below} {a}.",
    ),
    "larger": (
        "Of {a} and {b}, the {larger} one is {a}.",
        "{a} takes up {more} room than {b}.",
        "{b} is not as {big} as {a}.",
        "In size {a} {exceeds} {b}.",
        "{a} is the {larger} of the two, {b} the {smaller}.",
        "Next to {b}, {a} looks {larger}.",
        "Measured by area, {a} comes out {larger} than {b}.",
    ),
    "nearest": (
        "No object is {nearer} {to} {b} than {a}.",
        "Of all the objects, {a} has the {shortest} distance to {b}.",
        "Measured from {b}, {a} is the {nearest}.",
        "Everything else is {farther} {from} {b} than {a} is.",
        "The distance from {b} is {smallest} for {a}.",
        "For {b} the {nearest} object is {a}.",
        "No other object is as {near} {to} {b} as {a}.",
    ),
    "between": (
        "{a} has {b} on one side and {c} on the other.",
        "On the way from {b} to {c} one passes {a}.",
        "{a} separates {b} from {c}.",
        "{b} and {c} have {a} in the middle.",
        "{b}, then {a}, then {c}: that is the order.",
        "Somewhere between {b} and {c} there is {a}.",
    ),
    "inside": (
        "{b} encloses {a}.",
        "{a} lies within the outline of {b}.",
        "You find {a} in the interior of {b}.",
        "All of {a} is in {b}.",
        "{b} goes all around {a}.",
        "{a} does not stick out of {b}, it is inside it.",
    ),
    "count": (
        "Counting the {kinds}, I get {n}.",
        "The {kinds} number {n}.",
        "{n} {nkinds} can be seen in the picture.",
        "The total of {kinds} comes to {n}.",
        "That makes {n} {nkinds}.",
        "As for {kinds}, I find {n}.",
        "My count of {kinds} is {n}.",
    ),
    "exists": (
        "{an} can be seen.",
        "One of the objects is {an}.",
        "Among the shapes is {an}.",
        "We also have {an} here.",
        "I notice {an}.",
    ),
    "at": (
        "{a} occupies {box}.",
        "At {box} we have {a}.",
        "The box of {a} is {box}.",
        "The region {box} contains {a}.",
        "{box} marks where {a} is.",
        "{a}: {box}.",
        "{a} goes from corner to corner of {box}.",
    ),
    "denial": (
        "It isn't true that {claim}.",
        "It would be false to claim that {claim}.",
        "I don't see that {claim}; it is not so.",
        "The statement that {claim} is not true.",
        "I would not say that {claim}.",
    ),
    "conclusion": (
        "So the answer must be {o}.",
        "Hence I choose {L}.",
        "That makes {o} the right choice.",
        "Option {L} is therefore correct.",
        "I'll go with {o}.",
        "Thus ({L}) is the one to select.",
        "All of this speaks for {L}.",
        "Everything points to {o}, so that is my answer.",
        "Final answer: {o}.",
        "With that, {L} wins.",
    ),
    "elimination": (
        "It can't be {o}.",
        "Option {L} is ruled out.",
        "{o} does not work.",
        "That leaves {o} out.",
    ),
    "hedge": (
        "It could be {o} or {p}.",
        "Perhaps {o}, perhaps {p}; hard to tell.",
        "Both {o} and {p} seem possible.",
        "I am torn between {o} and {p}.",
        "Whether {o} or {p}, I cannot say.",
    ),
    "correction": (
        "Wait, that's not right: {claim}.",
        "On second thought, {claim}.",
        "No, I misread it; in fact {claim}.",
        "Looking closer, {claim}.",
        "I take that back, {claim}.",
    ),
    "idle": (
        "Let me think this through.",
        "The question is about the objects of this picture.",
        "Okay, let me look at each object in turn.",
        "Let me look at the left side of the image first.",
        "With that settled, on to the comparison.",
        "That should be enough to tell.",
        "This is straightforward.",
    ),
}
"""What is said → its wordings. A relation that is not here is said by those of its opposite."""

OPPOSITES: dict[str, dict[str, str]] = {
    "right": {"left": "right", "right": "left"},
    "below": {"above": "below", "below": "above", "higher": "lower", "lower": "higher"}
    | {"up": "down", "down": "up", "top": "bottom", "bottom": "top"},
    "smaller": {"larger": "smaller", "smaller": "larger", "more": "less", "big": "small", "exceeds": "falls short of"},
    "farthest": {"near": "far", "nearer": "farther", "farther": "nearer", "nearest": "farthest"}
    | {"shortest": "greatest", "smallest": "largest", "to": "from", "from": "to"},
}
"""Relation without wordings of its own → what becomes of the words in braces of its opposite's wordings."""
