"""The words of the built-in world's grammar, and the words that make a sentence a visual claim."""

from __future__ import annotations

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring")
SIZES = ("small", "medium", "large")

PLURALS = {"cross": "crosses", **{shape: shape + "s" for shape in SHAPES if shape != "cross"}}
THING_WORDS = ("object", "thing", "shape", "item")

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBERS = {word: number for number, word in enumerate(_NUMBER_WORDS.split())}

YES = frozenset(("yes", "yeah", "yep", "true", "oui", "sí", "si", "ja", "是", "是的", "对", "对的", "はい", "да"))
NO = frozenset(("no", "nope", "false", "non", "nein", "否", "不", "不是", "不对", "いいえ", "нет"))
"""Words that answer a question by themselves."""

_PLACES_AND_LOOKS = """
    left right above below over under beneath underneath top bottom higher lower near nearer nearest close closer
    closest far farther farthest further furthest between inside within outside contains beside behind front next
    adjacent corner middle center centre row column touching overlaps overlapping position located
    black grey gray brown pink rectangle star heart oval hexagon box boxes big bigger biggest larger largest smaller
    smallest tall tiny huge same image picture scene photo background see seen sees visible shows shown bbox
"""
VISUAL_WORDS = frozenset((*COLORS, *SHAPES, *PLURALS.values(), *SIZES, *_PLACES_AND_LOOKS.split()))
"""Of the built-in world: a sentence that can't be read is INCORRECT with one of these (or a <bbox> tag), else SKIP."""

# People, animals, things, words of seeing, and words of manner follow each other.
_OF_ANY_IMAGE = """
    person people man men woman women child children boy girl baby kid adult player rider driver crowd face head
    hair eye eyes hand hands arm arms leg legs foot feet body shirt pants jeans dress skirt jacket coat hat cap shoe
    shoes glasses helmet tie glove bag backpack handbag umbrella suitcase watch ring
    animal dog cat bird horse sheep cow elephant bear zebra giraffe fish duck butterfly insect tail wing wings paw
    beak
    object objects thing things item items shape shapes bicycle bike car cars truck bus train boat ship airplane
    plane motorcycle vehicle vehicles wheel wheels door doors window windows wall floor ceiling roof room kitchen
    bathroom house building buildings bridge tower street road sidewalk lane crosswalk sign signs light lights pole
    fence bench chair chairs table desk sofa couch bed pillow blanket curtain lamp shelf cabinet drawer counter sink
    toilet mirror stove oven refrigerator fridge microwave television tv monitor screen laptop keyboard mouse phone
    camera clock book books paper pen pencil bottle cup cups glass plate plates bowl fork knife spoon vase flower
    flowers plant tree trees leaf leaves grass branch ball toy kite skateboard surfboard skis racket bat block
    blocks cube sphere cylinder cone basket towel rug carpet picture painting poster logo label text letter word
    number line lines arrow dot dots mark edge edges side sides end food pizza cake sandwich apple banana orange
    carrot bread fruit vegetable meat sky cloud clouds sun moon water sea ocean river lake beach sand snow mountain
    hill field rock rocks stone ground shadow reflection smoke fire
    look looks looked appears appear seems notice noticed observe observed depicts depicted displays displayed view
    viewed viewer viewpoint perspective angle region area part foreground frame crop zoom visible hidden occluded
    partially there standing sitting lying walking running holding wearing riding facing pointing looking eating
    playing carrying hanging leaning parked open closed turned moving placed
    bright dark light pale colorful colour color colored coloured striped plain shiny wooden metal metallic plastic
    round rectangular triangular curved straight flat long longer longest short shorter shortest taller tallest wide
    wider narrow thick thin empty full old new upper lower front back rear distance distant nearby facing toward
    towards away along across around opposite upside down up north south east west clockwise counterclockwise
    horizontal horizontally vertical vertically ahead directly diagonal diagonally against beyond surrounded
    surrounding attached
"""
SEEN_WORDS = VISUAL_WORDS.union(_OF_ANY_IMAGE.split())
"""Of any image: a sentence without any of these is trivial, unless it points at something. Lower case, whole words."""
