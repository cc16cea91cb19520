"""Attributes of family, health and past for the synthetic chats."""

from __future__ import annotations

from envs.workloads.chat_text import Attribute

PERSONAL_ATTRIBUTES = (
    Attribute(
        name="allergy",
        tone="care",
        values=(
            *("peanuts", "shellfish", "sesame", "strawberries", "penicillin", "birch pollen"),
            *("wasp stings", "latex", "kiwi fruit", "mustard", "soy", "celery", "walnuts"),
        ),
        statements=(
            "It turns out I'm allergic to {v}. The doctor confirmed it.",
            "I have to be careful, you see: I'm allergic to {v}.",
            "A small warning, in case it ever matters: I'm allergic to {v}.",
        ),
        questions=("What is {who} allergic to?", "Which thing is {who} allergic to?"),
        paraphrases=(
            "What could make {who} break out in hives?",
            "What must {who} avoid for health reasons?",
        ),
        comparisons=(
            "What are {a} and {b} allergic to?",
            "What must {a} and {b} avoid for health reasons?",
        ),
        others=(
            "{rel} is allergic to {v}, so the picnic took some planning.",
            "I only just found out that {rel} is allergic to {v}.",
        ),
    ),
    Attribute(
        name="medication",
        tone="care",
        values=(
            *("iron tablets", "vitamin D drops", "magnesium", "antihistamines", "an antacid"),
            *("thyroid tablets", "blood pressure tablets", "fish oil capsules", "folic acid"),
            *("zinc", "a statin", "melatonin"),
        ),
        statements=(
            "I take {v} every day now, doctor's orders.",
            "My doctor wants me to take {v} for a while.",
            "I take {v} these days, and there's a note on the fridge so I won't forget.",
        ),
        questions=("What medicine does {who} take?", "What does {who} have to take?"),
        paraphrases=("Which pills is {who} on?", "What was prescribed for {who}?"),
        comparisons=("What medicine do {a} and {b} take?", "Which pills are {a} and {b} on?"),
        others=(
            "{rel} has to take {v} and complains about it all day.",
            "{rel} swears everyone should take {v}. I'm not so sure.",
        ),
        updates=(
            "The doctor changed it after my check-up, so I take {v} now.",
            "The old stuff didn't agree with me, so now I take {v} instead.",
        ),
        previous=("What medicine did {who} take before the change?",),
        previous_paraphrases=("Which pills was {who} on originally?",),
    ),
    Attribute(
        name="fear",
        tone="care",
        values=(
            *("heights", "spiders", "lifts", "thunder", "deep water", "geese", "moths"),
            *("needles", "tunnels", "clowns", "escalators", "the dark", "snakes"),
        ),
        statements=(
            "Please don't laugh, but I'm afraid of {v}.",
            "I've been afraid of {v} ever since I was small.",
            "I had to admit in front of everyone that I'm afraid of {v}.",
        ),
        questions=("What is {who} afraid of?", "Which thing is {who} afraid of?"),
        paraphrases=("What scares {who}?", "Which phobia does {who} have?"),
        comparisons=("What are {a} and {b} afraid of?", "Which phobias do {a} and {b} have?"),
        others=(
            "{rel} is so afraid of {v} that we had to turn back.",
            "Who knew that {rel} is afraid of {v}?",
        ),
    ),
    Attribute(
        name="sister",
        tone="plain",
        values=(
            *("Agnes", "Beatrix", "Corinna", "Delphine", "Estelle", "Frieda", "Greta"),
            *("Harriet", "Isolde", "Josefine", "Katarina", "Lucinda", "Marisol", "Ottilie"),
        ),
        statements=(
            "My sister {v} rang me out of the blue.",
            "I spent the afternoon with {v}, my sister.",
            "My sister {v} is staying with me for a bit.",
        ),
        questions=("What is {who}'s sister called?", "What is the name of {who}'s sister?"),
        paraphrases=("Who is {who}'s sibling?", "Which close relative does {who} have?"),
        comparisons=(
            "What are the sisters of {a} and {b} called?",
            "Who are the siblings of {a} and {b}?",
        ),
        others=(
            "{rel} has a sister, {v}, who sings in the opera chorus.",
            "I met {v} at the market, the sister of {rel}.",
        ),
    ),
    Attribute(
        name="birthday_month",
        tone="plain",
        values=(
            *("January", "February", "March", "April", "May", "June", "July"),
            *("August", "September", "October", "November", "December"),
        ),
        statements=(
            "My birthday is in {v}, and I never know how to celebrate it.",
            "I'm not big on parties, but my birthday in {v} is an exception.",
            "Just so you can plan ahead, my birthday is in {v}.",
        ),
        questions=("When is {who}'s birthday?", "In which month is {who}'s birthday?"),
        paraphrases=("What time of year was {who} born?", "When does {who} turn a year older?"),
        comparisons=(
            "In which months are the birthdays of {a} and {b}?",
            "When were {a} and {b} born?",
        ),
        others=(
            "{rel} has a birthday in {v}, and I still need a present.",
            "{rel} wants a huge birthday party in {v}.",
        ),
    ),
    Attribute(
        name="childhood_street",
        tone="plain",
        values=(
            *("Alder Lane", "Mill Road", "Station Street", "Foxglove Close", "Harbour Row"),
            *("Chapel Hill", "Quarry Road", "Linden Avenue", "Weaver Street", "Orchard Way"),
            *("Castle Terrace", "Brook Lane"),
        ),
        statements=(
            "I spent my whole childhood on {v}, right next to a bakery.",
            "I walked down {v} again, the street of my childhood.",
            "My childhood was all {v}: football, scooters and grazed knees.",
        ),
        questions=(
            "On which street did {who} spend their childhood?",
            "Which street was {who}'s childhood home on?",
        ),
        paraphrases=(
            "Where was {who}'s family based in the early years?",
            "What address did {who} have as a kid?",
        ),
        comparisons=(
            "On which streets did {a} and {b} spend their childhood?",
            "What addresses did {a} and {b} have as kids?",
        ),
        others=(
            "{rel} showed me {v}, the street of a very happy childhood by all accounts.",
            "For {rel}, childhood meant {v} and a lot of mud.",
        ),
    ),
    Attribute(
        name="degree",
        tone="plain",
        values=(
            *("geology", "philosophy", "marine biology", "economics", "linguistics", "history"),
            *("architecture", "chemistry", "theology", "statistics", "archaeology", "law"),
        ),
        statements=(
            "I did my degree in {v}, a long time ago.",
            "I never use my degree in {v}, but I don't regret it.",
            "I was tidying and came across my degree. {v}, who would have thought!",
        ),
        questions=("What is {who}'s degree in?", "Which degree does {who} have?"),
        paraphrases=(
            "What did {who} major in at university?",
            "Which field was {who} trained in academically?",
        ),
        comparisons=(
            "What are the degrees of {a} and {b} in?",
            "What did {a} and {b} major in at university?",
        ),
        others=(
            "{rel} is finishing a degree in {v} at sixty.",
            "{rel} has a degree in {v} and drives a taxi.",
        ),
    ),
)
