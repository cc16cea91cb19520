"""Attributes of free time for the synthetic chats: hobbies, plans, things being learnt."""

from __future__ import annotations

from envs.workloads.chat_text import Attribute

LEISURE_ATTRIBUTES = (
    Attribute(
        name="hobby",
        tone="happy",
        values=(
            *("birdwatching", "whittling", "bouldering", "chess", "origami", "juggling"),
            *("stargazing", "candle making", "archery", "geocaching", "embroidery", "salsa"),
            *("model trains", "wild swimming"),
        ),
        statements=(
            "My latest hobby is {v}, and I'm hooked.",
            "I've found a hobby at last: {v}.",
            "Every spare minute goes into my hobby, {v}.",
        ),
        questions=("What is {who}'s hobby?", "Which hobby does {who} have?"),
        paraphrases=("How does {who} spend free time?", "What pastime does {who} enjoy?"),
        comparisons=(
            "What are the hobbies of {a} and {b}?",
            "What pastimes do {a} and {b} enjoy?",
        ),
        others=(
            "{rel} has taken up {v} as a hobby.",
            "The new hobby of {rel} is {v}, believe it or not.",
        ),
        updates=(
            "I've moved on to a different hobby: {v}.",
            "The old hobby got a bit dull, so my hobby is {v} now.",
        ),
        previous=("What was {who}'s hobby before the current one?",),
        previous_paraphrases=("What pastime did {who} enjoy at first?",),
    ),
    Attribute(
        name="instrument",
        tone="happy",
        values=(
            *("the cello", "the banjo", "the clarinet", "the accordion", "the ukulele"),
            *("the trombone", "the harp", "the oboe", "the drums", "the mandolin"),
            *("the saxophone", "the viola", "the bass guitar", "the piano"),
        ),
        statements=(
            "I play {v}, badly but with feeling.",
            "My neighbours are patient people: I play {v} every evening.",
            "I play {v} in a little amateur group.",
        ),
        questions=("What instrument does {who} play?", "Which instrument can {who} play?"),
        paraphrases=(
            "What does {who} make music on?",
            "If {who} joined a band, what would they bring along?",
        ),
        comparisons=(
            "Which instruments do {a} and {b} play?",
            "What do {a} and {b} make music on?",
        ),
        others=(
            "{rel} plays {v}, and the whole street can hear it.",
            "{rel} wants to play {v} at the wedding.",
        ),
    ),
    Attribute(
        name="trip",
        tone="happy",
        values=(
            *("Iceland", "Madeira", "Crete", "Slovenia", "Morocco", "the Dolomites", "Scotland"),
            *("Malta", "Vietnam", "the Azores", "Japan", "Norway", "Corsica", "Estonia"),
        ),
        statements=(
            "I've booked a trip to {v}!",
            "I'm counting the days until my trip to {v}.",
            "I should start packing for my trip to {v}.",
        ),
        questions=("Where is {who}'s trip going to?", "What trip has {who} planned?"),
        paraphrases=(
            "Where will {who} spend the holidays?",
            "Which destination is {who} about to fly to?",
        ),
        comparisons=(
            "Where are the trips of {a} and {b} going to?",
            "Where will {a} and {b} spend the holidays?",
        ),
        others=(
            "{rel} is just back from a trip to {v}.",
            "{rel} showed me four hundred pictures of a trip to {v}.",
        ),
        updates=(
            "Change of plan: my trip is to {v} now.",
            "The first one fell through, so I've rebooked: my trip goes to {v}.",
        ),
        previous=("Where was {who}'s trip going to in the first plan?",),
        previous_paraphrases=("Which destination did {who} originally want to fly to?",),
    ),
    Attribute(
        name="course",
        tone="happy",
        values=(
            *("pottery", "first aid", "bookkeeping", "web design", "upholstery", "beekeeping"),
            *("creative writing", "calligraphy", "furniture restoration", "astronomy"),
            *("bread baking", "screen printing", "photography"),
        ),
        statements=(
            "I've signed up for an evening course in {v}.",
            "My course in {v} has started, and I'm the oldest one there.",
            "I come home exhausted from my course in {v}, but I love it.",
        ),
        questions=("What course is {who} taking?", "Which course did {who} sign up for?"),
        paraphrases=("What subject is {who} studying?", "What is {who} being taught in class?"),
        comparisons=(
            "What courses are {a} and {b} taking?",
            "What subjects are {a} and {b} studying?",
        ),
        others=(
            "{rel} runs a course in {v} and is always short of people.",
            "{rel} dropped out of a course in {v} after one evening.",
        ),
        updates=(
            "I've dropped out of the first one. Now I'm on a course in {v}.",
            "They let me swap, so my course is in {v} now.",
        ),
        previous=("Which course did {who} take before swapping?",),
        previous_paraphrases=("What subject was {who} studying to begin with?",),
    ),
    Attribute(
        name="running_distance",
        tone="happy",
        values=(
            *("3 kilometres", "4 kilometres", "5 kilometres", "6 kilometres", "7 kilometres"),
            *("8 kilometres", "9 kilometres", "11 kilometres", "12 kilometres"),
            *("14 kilometres", "16 kilometres", "18 kilometres"),
        ),
        statements=(
            "I run {v} before breakfast, rain or shine.",
            "I can run {v} without stopping. Not bad for me!",
            "Every weekend I run {v} along the canal.",
        ),
        questions=("How far does {who} run?", "What distance does {who} run?"),
        paraphrases=(
            "How long is {who}'s jogging route?",
            "What does {who} manage on a good jog?",
        ),
        comparisons=("How far do {a} and {b} run?", "How long are {a} and {b}'s jogging routes?"),
        others=(
            "{rel} can run {v} and brags about it.",
            "{rel} had to run {v} for charity.",
        ),
        updates=(
            "The training pays off: I run {v} now.",
            "I have new shoes, so these days I run {v}.",
        ),
        previous=("How far did {who} run at first?",),
        previous_paraphrases=("How long was {who}'s original jogging route?",),
    ),
    Attribute(
        name="garden_plant",
        tone="happy",
        values=(
            *("tomatoes", "dahlias", "runner beans", "sweet peas", "courgettes", "chillies"),
            *("raspberries", "sunflowers", "tulips", "radishes", "marigolds", "peonies"),
            *("cucumbers",),
        ),
        statements=(
            "I grow {v} on the balcony, and the bees love it.",
            "This year I decided to grow {v}.",
            "I'm so proud, I managed to grow {v} from seed!",
        ),
        questions=("What does {who} grow?", "Which plants does {who} grow?"),
        paraphrases=(
            "What is {who} cultivating at home?",
            "What could {who} pick a bunch of for a guest?",
        ),
        comparisons=("What do {a} and {b} grow?", "What are {a} and {b} cultivating at home?"),
        others=(
            "{rel} tries to grow {v}, and the slugs eat everything.",
            "{rel} told me how to grow {v}. It sounds like hard work.",
        ),
    ),
    Attribute(
        name="language",
        tone="happy",
        values=(
            *("Finnish", "Portuguese", "Korean", "Welsh", "Swahili", "Greek", "Catalan"),
            *("Polish", "Hindi", "Turkish", "Icelandic", "Mandarin", "Basque"),
        ),
        statements=(
            "I'm learning {v} with a little app.",
            "I've decided to learn {v}, wish me luck.",
            "My evenings go into learning {v} at the moment.",
        ),
        questions=("Which language is {who} learning?", "What language does {who} want to learn?"),
        paraphrases=(
            "What foreign tongue is {who} studying?",
            "Which vocabulary does {who} practise?",
        ),
        comparisons=(
            "Which languages are {a} and {b} learning?",
            "What foreign tongues are {a} and {b} studying?",
        ),
        others=(
            "{rel} is learning {v} and talks to the cat in it.",
            "{rel} tried to learn {v} and gave up.",
        ),
        updates=(
            "The grammar beat me. I'm learning {v} instead now.",
            "I've switched apps and countries: now I'm learning {v}.",
        ),
        previous=("Which language was {who} learning before the switch?",),
        previous_paraphrases=("What foreign tongue was {who} studying at first?",),
    ),
    Attribute(
        name="first_concert",
        tone="happy",
        values=(
            *("the Paper Lanterns", "Velvet Anchor", "the Night Postmen", "Copper Moon"),
            *("the Tin Roses", "Static Garden", "the Midnight Bakers", "Polar Choir"),
            *("the Wooden Astronauts", "Marble Fox", "the Sunday Pilots", "Echo Lake"),
        ),
        statements=(
            "The first concert I ever went to was {v}.",
            "My first concert was {v}, and I lost my voice from shouting.",
            "Look what I found in a drawer: the ticket of my first concert, {v}!",
        ),
        questions=("What was {who}'s first concert?", "Which band gave {who}'s first concert?"),
        paraphrases=(
            "Which group did {who} see live before any other?",
            "Whose gig started it all for {who}?",
        ),
        comparisons=(
            "What were the first concerts of {a} and {b}?",
            "Which groups did {a} and {b} see live before any other?",
        ),
        others=(
            "{rel} met a future husband at a concert of {v}.",
            "{rel} has a spare ticket for the concert of {v}.",
        ),
    ),
    Attribute(
        name="volunteering",
        tone="happy",
        values=(
            *("the animal shelter", "the food bank", "the city library", "the hospice"),
            *("the community garden", "the repair cafe", "the youth club", "the museum"),
            *("the soup kitchen", "the lifeboat station", "the charity shop", "the nature reserve"),
        ),
        statements=(
            "I volunteer at {v} twice a month.",
            "I've started to volunteer at {v}, and the people are lovely.",
            "I was at {v} all morning, you know I volunteer there.",
        ),
        questions=("Where does {who} volunteer?", "Which organisation does {who} volunteer for?"),
        paraphrases=(
            "Where does {who} help out for free?",
            "Which place gets unpaid hours from {who}?",
        ),
        comparisons=(
            "Where do {a} and {b} volunteer?",
            "Where do {a} and {b} help out for free?",
        ),
        others=(
            "{rel} is a volunteer at {v} and always looking for more hands.",
            "{rel} asked me to volunteer at {v}, but I said no.",
        ),
        updates=(
            "I needed a change, so I volunteer at {v} now.",
            "They didn't need me any more, so I volunteer at {v} these days.",
        ),
        previous=("Where did {who} volunteer before the change?",),
        previous_paraphrases=("Where did {who} use to help out for free?",),
    ),
)
