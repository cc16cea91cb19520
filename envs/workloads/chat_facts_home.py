"""Attributes of work, home and possessions for the synthetic chats."""

from __future__ import annotations

from envs.workloads.chat_text import Attribute

HOME_ATTRIBUTES = (
    Attribute(
        name="home_city",
        tone="happy",
        values=(
            *("Leeds", "Porto", "Ghent", "Tampere", "Bristol", "Lyon", "Graz", "Bergen"),
            *("Galway", "Seville", "Utrecht", "Turin", "Aarhus", "Cork"),
        ),
        statements=(
            "I live in {v} these days and I'm slowly learning my way around.",
            "My flat is in {v}, and I really like where I live.",
            "It's funny, I never thought I would live in {v}, but here I am.",
        ),
        questions=("Where does {who} live?", "In which city does {who} live?"),
        paraphrases=(
            "What place does {who} call home?",
            "Which town would you send a letter for {who} to?",
        ),
        comparisons=("Where do {a} and {b} live?", "What places do {a} and {b} call home?"),
        others=(
            "{rel} lives in {v} and keeps inviting me over.",
            "I was on the phone with {rel}, who went to live in {v} last year.",
        ),
        updates=(
            "I've finally packed up my boxes. From this week on I live in {v}!",
            "Big change on my side: I live in {v} now.",
        ),
        previous=("Where did {who} live before the move?",),
        previous_paraphrases=("What place did {who} once call home?",),
    ),
    Attribute(
        name="job",
        tone="happy",
        values=(
            *("a nurse", "a baker", "a librarian", "an electrician", "a translator"),
            *("a physiotherapist", "a graphic designer", "a tram driver", "an accountant"),
            *("a primary school teacher", "a landscape gardener", "a lab technician"),
            *("a paramedic", "a sound engineer"),
        ),
        statements=(
            "I work as {v}, so no two of my weeks are quite the same.",
            "Did I ever tell you that I work as {v}?",
            "When you work as {v} like me, you need a proper sit-down in the evening.",
        ),
        questions=("What does {who} work as?", "What kind of work does {who} do?"),
        paraphrases=("How does {who} earn a living?", "What is {who}'s profession?"),
        comparisons=("What do {a} and {b} work as?", "How do {a} and {b} earn a living?"),
        others=(
            "{rel} works as {v} and has the best stories.",
            "I had lunch with {rel}, who works as {v}.",
        ),
        updates=(
            "I've handed in my notice. From Monday on I work as {v}.",
            "I made the switch! I work as {v} now.",
        ),
        previous=("What did {who} work as before switching?",),
        previous_paraphrases=("What was {who}'s former profession?",),
    ),
    Attribute(
        name="employer",
        tone="plain",
        values=(
            *("Harlow & Finch", "Northgate Partners", "the Calder Group", "Bluewater Holdings"),
            *("Osprey Services", "Marlow & Daughters", "the Tilden Trust", "Quayside Limited"),
            *("Redfern Associates", "the Ashby Foundation", "Larkspur & Co", "Stonebridge"),
        ),
        statements=(
            "My employer, {v}, gave everyone a day off.",
            "I'm with {v}, and as an employer they are pretty decent.",
            "Say what you like about {v}, they've been a fair employer to me.",
        ),
        questions=("Who is {who}'s employer?", "What is the name of {who}'s employer?"),
        paraphrases=("Which company pays {who}'s wages?", "Which firm has {who} on its staff?"),
        comparisons=(
            "Who are the employers of {a} and {b}?",
            "Which companies pay the wages of {a} and {b}?",
        ),
        others=(
            "{rel} has a very relaxed employer, {v}. Everyone goes home early on Fridays!",
            "{rel} just signed with a new employer, {v}.",
        ),
        updates=(
            "I have a new employer: I started at {v} this week.",
            "So, new employer! They're called {v}, and everyone is very friendly.",
        ),
        previous=("Who was {who}'s employer before the current one?",),
        previous_paraphrases=("Which company used to pay {who}'s wages?",),
    ),
    Attribute(
        name="pet",
        tone="happy",
        values=(
            *("a beagle called Biscuit", "a tabby cat called Pepper", "a tortoise called Doris"),
            *("a greyhound called Comet", "a cockatiel called Figaro", "a corgi called Waffle"),
            *("a rabbit called Clover", "a ginger kitten called Mango", "a gecko called Ziggy"),
            *("a hamster called Pickle", "a border collie called Skye", "a parrot called Rio"),
            *("a Labrador called Moose", "a guinea pig called Truffle"),
        ),
        statements=(
            "I have a pet now: {v}. The carpet will never be the same.",
            "It finally happened, I got a pet! It's {v}.",
            "My pet keeps me company in the evenings. It's {v}, in case I never said.",
        ),
        questions=("What pet does {who} have?", "Which pet did {who} get?"),
        paraphrases=("Which animal shares {who}'s home?", "What animal does {who} look after?"),
        comparisons=(
            "What pets do {a} and {b} have?",
            "Which animals share the homes of {a} and {b}?",
        ),
        others=(
            "{rel} got a pet, {v}, and talks about nothing else.",
            "{rel} has a pet, {v}. I get photos every day.",
        ),
    ),
    Attribute(
        name="kitchen_colour",
        tone="happy",
        values=(
            *("sage green", "mustard yellow", "navy blue", "terracotta", "pale pink", "charcoal"),
            *("mint green", "lilac", "cream", "turquoise", "plum", "sky blue"),
        ),
        statements=(
            "I painted the kitchen {v} over the bank holiday.",
            "The kitchen is painted at last! I went for {v}.",
            "My arms hurt because I painted my kitchen {v} all by myself.",
        ),
        questions=(
            "What colour did {who} paint the kitchen?",
            "Which colour is {who}'s kitchen painted in?",
        ),
        paraphrases=(
            "What shade are {who}'s walls?",
            "Which hue surrounds {who} when making dinner?",
        ),
        comparisons=(
            "What colours are the kitchens of {a} and {b} painted in?",
            "What shades are the walls of {a} and {b}?",
        ),
        others=(
            "{rel} painted the kitchen {v}, and it looks like a sweet shop.",
            "I helped {rel} paint the kitchen. {v}, of all things!",
        ),
        updates=(
            "I couldn't stand it any more, so I painted the kitchen again, {v} this time.",
            "The kitchen has been painted over: it's {v} now.",
        ),
        previous=("What colour was {who}'s kitchen painted in at first?",),
        previous_paraphrases=("What shade were {who}'s walls originally?",),
    ),
    Attribute(
        name="car",
        tone="happy",
        values=(
            *("a red hatchback", "an old blue van", "a silver estate", "a yellow convertible"),
            *("a black pickup", "a green camper", "a tiny electric two-seater", "a white minibus"),
            *("a rusty brown jeep", "a grey saloon", "a purple hearse", "an orange roadster"),
        ),
        statements=(
            "I drive {v}, and it rattles a little.",
            "You'll recognise me from afar, I drive {v}.",
            "I can pick everyone up, since I drive {v}.",
        ),
        questions=("What does {who} drive?", "What car does {who} drive?"),
        paraphrases=("Which vehicle belongs to {who}?", "What is parked outside {who}'s house?"),
        comparisons=("What do {a} and {b} drive?", "Which vehicles belong to {a} and {b}?"),
        others=(
            "{rel} let me drive {v} around the block.",
            "{rel} used to drive {v}, you should have seen it.",
        ),
        updates=(
            "I sold the old one at last. I drive {v} now.",
            "You won't spot me so easily any more: these days I drive {v}.",
        ),
        previous=("What did {who} drive before the current car?",),
        previous_paraphrases=("Which vehicle once belonged to {who}?",),
    ),
)
