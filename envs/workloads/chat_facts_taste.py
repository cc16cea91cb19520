"""Attributes of taste and habit for the synthetic chats: favourites and routines."""

from __future__ import annotations

from envs.workloads.chat_text import Attribute

TASTE_ATTRIBUTES = (
    Attribute(
        name="favourite_dish",
        tone="happy",
        values=(
            *("mushroom risotto", "fish pie", "pad thai", "lentil dal", "shakshuka", "goulash"),
            *("ramen", "moussaka", "pierogi", "jollof rice", "chicken tagine", "potato gratin"),
            *("vegetable lasagne", "okonomiyaki"),
        ),
        statements=(
            "My favourite dish has to be {v}. I could have it every week.",
            "If you come round I'll make you my favourite dish, {v}.",
            "Nothing beats {v}, it's my favourite dish by far.",
        ),
        questions=("What is {who}'s favourite dish?", "Which dish is {who}'s favourite?"),
        paraphrases=(
            "Which meal does {who} like best?",
            "What food would you order to please {who}?",
        ),
        comparisons=(
            "What are the favourite dishes of {a} and {b}?",
            "Which meals do {a} and {b} like best?",
        ),
        others=(
            "{rel} made {v} for everyone. A family favourite, that dish.",
            "{rel} says {v} is the best dish in the world.",
        ),
        updates=(
            "I've changed my mind: my favourite dish is {v} now.",
            "I have a new favourite dish, by the way. It's {v}!",
        ),
        previous=("What was {who}'s favourite dish before the current one?",),
        previous_paraphrases=("Which meal did {who} once like best?",),
    ),
    Attribute(
        name="favourite_book",
        tone="plain",
        values=(
            *("The Salt Garden", "A Map of Small Hours", "The Clockmaker's Winter", "Paper Tigers"),
            *("Nine Lanterns", "The Quiet Harbour", "An Orchard in Snow", "The Last Ferryman"),
            *("Letters to the Moon", "The Glass Fiddle", "A Borrowed Summer", "Ashes and Honey"),
        ),
        statements=(
            "My favourite book is still {v}.",
            "I picked up {v} again last night, my favourite book since forever.",
            "{v} is my favourite book, and I've lent it to half of my friends.",
        ),
        questions=("What is {who}'s favourite book?", "Which book is {who}'s favourite?"),
        paraphrases=(
            "Which novel does {who} love most?",
            "What would {who} take along to read on a desert island?",
        ),
        comparisons=(
            "What are the favourite books of {a} and {b}?",
            "Which novels do {a} and {b} love most?",
        ),
        others=(
            "{rel} gave me a favourite book of theirs, {v}.",
            "The book club of {rel} has chosen {v} this time.",
        ),
        updates=(
            "I stayed up all night with {v}, and it's my new favourite book.",
            "My favourite book has a successor: {v}. What an ending!",
        ),
        previous=("What was {who}'s favourite book before the current one?",),
        previous_paraphrases=("Which novel did {who} love most in the past?",),
    ),
    Attribute(
        name="favourite_film",
        tone="plain",
        values=(
            *("Midnight Tram", "The Lighthouse Keepers", "Second Violin", "Dust Over Cairo"),
            *("The Honey Trap", "Runaway Comet", "Seven Umbrellas", "A Town Called Mercy"),
            *("The Snow Thief", "Velvet Station", "Old Friends, New Enemies", "Blue Parade"),
        ),
        statements=(
            "{v} was on again, still my favourite film.",
            "I know every line of {v}, it's my favourite film.",
            "My favourite film of all time is {v}, no contest.",
        ),
        questions=("What is {who}'s favourite film?", "Which film is {who}'s favourite?"),
        paraphrases=(
            "Which movie does {who} love most?",
            "What would {who} happily watch at the cinema once more?",
        ),
        comparisons=(
            "What are the favourite films of {a} and {b}?",
            "Which movies do {a} and {b} love most?",
        ),
        others=(
            "{rel} made me sit through {v}. Three hours, that film!",
            "{rel} has a favourite film, {v}, and quotes it all the time.",
        ),
    ),
    Attribute(
        name="morning_drink",
        tone="plain",
        values=(
            *("jasmine tea", "black coffee", "hot chocolate", "oat milk latte", "peppermint tea"),
            *("ginger tea", "orange juice", "espresso", "matcha", "chai", "kefir", "rooibos"),
        ),
        statements=(
            "I drink {v} first thing in the morning, always.",
            "Don't talk to me before I've had my morning drink, which is {v}.",
            "My morning drink is {v}, and I take it seriously.",
        ),
        questions=(
            "What does {who} drink in the morning?",
            "What is {who}'s morning drink?",
        ),
        paraphrases=(
            "Which beverage does {who} have after waking up?",
            "What is in {who}'s cup at breakfast?",
        ),
        comparisons=(
            "What do {a} and {b} drink in the morning?",
            "Which beverages do {a} and {b} have after waking up?",
        ),
        others=(
            "{rel} will only drink {v} in the morning.",
            "I shared my morning drink, some {v}, with {rel}.",
        ),
        updates=(
            "I've switched my morning drink to {v}, and I feel so much better.",
            "New habit: I drink {v} in the morning now.",
        ),
        previous=("What did {who} drink in the morning before the switch?",),
        previous_paraphrases=("Which beverage used to be in {who}'s cup at breakfast?",),
    ),
    Attribute(
        name="gym_time",
        tone="plain",
        values=(
            *("Monday mornings", "Tuesday mornings", "Wednesday mornings", "Thursday mornings"),
            *("Friday mornings", "Saturday mornings", "Sunday mornings", "Monday evenings"),
            *("Tuesday evenings", "Wednesday evenings", "Thursday evenings", "Friday evenings"),
        ),
        statements=(
            "I go to the gym on {v}, no excuses.",
            "I keep {v} free for the gym.",
            "If you need me on {v}, sorry, that's when I'm at the gym.",
        ),
        questions=("When does {who} go to the gym?", "On which day is {who} at the gym?"),
        paraphrases=("When does {who} work out?", "What is {who}'s weekly slot for exercise?"),
        comparisons=("When do {a} and {b} go to the gym?", "When do {a} and {b} work out?"),
        others=(
            "{rel} goes to the gym on {v} and came back limping.",
            "The gym is packed on {v}, or so {rel} says.",
        ),
        updates=(
            "They changed the timetable, so I go to the gym on {v} now.",
            "I've moved my gym sessions to {v}.",
        ),
        previous=("When did {who} go to the gym before the timetable changed?",),
        previous_paraphrases=("What was {who}'s original weekly slot for exercise?",),
    ),
    Attribute(
        name="alarm",
        tone="plain",
        values=(
            *("4:45", "5:10", "5:30", "5:50", "6:05", "6:20", "6:40", "6:55", "7:15", "7:25"),
            *("7:50", "8:10", "8:35"),
        ),
        statements=(
            "My alarm goes off at {v}, so I'd better not stay up late.",
            "I've set my alarm to {v} for the whole winter.",
            "Some people sleep in. My alarm is set for {v}.",
        ),
        questions=("When does {who}'s alarm go off?", "What time is {who}'s alarm set for?"),
        paraphrases=("At which hour does {who} get up?", "How early is {who} out of bed?"),
        comparisons=(
            "When do the alarms of {a} and {b} go off?",
            "At which hour do {a} and {b} get up?",
        ),
        others=(
            "{rel} has an alarm that goes off at {v}, even on holiday.",
            "{rel} sets an alarm for {v} and then ignores it.",
        ),
        updates=(
            "I had to move my alarm to {v}, the old time just didn't suit me.",
            "My alarm is on a new time: {v}.",
        ),
        previous=("What time was {who}'s alarm set for before the change?",),
        previous_paraphrases=("At which hour did {who} get up in the beginning?",),
    ),
    Attribute(
        name="team",
        tone="plain",
        values=(
            *("Harbour Rovers", "Northfield United", "Castle Athletic", "Ironbridge Town"),
            *("River Wanderers", "Eastgate Albion", "Millbrook City", "Saltmarsh Rangers"),
            *("Fernhill Thistle", "Kingsmoor County", "Oldport Dynamo", "Whitecliff Stars"),
        ),
        statements=(
            "I support {v}, for better or worse.",
            "I've supported {v} since I could walk.",
            "If you support {v} like I do, you learn to be patient.",
        ),
        questions=("Which team does {who} support?", "Who does {who} support?"),
        paraphrases=("Which club is {who} a fan of?", "Whose matches does {who} cheer at?"),
        comparisons=("Which teams do {a} and {b} support?", "Which clubs are {a} and {b} fans of?"),
        others=(
            "{rel} supports {v} and was unbearable after the final.",
            "You can tell from the scarf that {rel} supports {v}.",
        ),
    ),
    Attribute(
        name="collection",
        tone="happy",
        values=(
            *("old postcards", "enamel pins", "vinyl records", "fountain pens", "snow globes"),
            *("sea glass", "train tickets", "teapots", "chess sets", "beer mats", "typewriters"),
            *("board games", "paper maps"),
        ),
        statements=(
            "I collect {v}, and I'm running out of room.",
            "I started to collect {v} when I was a student.",
            "You could say I collect {v}. My friends say I hoard them.",
        ),
        questions=("What does {who} collect?", "What kind of things does {who} collect?"),
        paraphrases=(
            "What does {who} hunt for at flea markets?",
            "Which objects fill {who}'s shelves?",
        ),
        comparisons=(
            "What do {a} and {b} collect?",
            "What do {a} and {b} hunt for at flea markets?",
        ),
        others=(
            "{rel} collects {v}, there are boxes of them everywhere.",
            "{rel} wants me to collect {v} too. No chance.",
        ),
    ),
)
