"""Topics of which the synthetic chats collect several values in several turns."""

from __future__ import annotations

from envs.workloads.chat_text import ListTopic

LIST_TOPICS = (
    ListTopic(
        name="cities_visited",
        tone="happy",
        values=(
            *("Prague", "Lisbon", "Vienna", "Oslo", "Naples", "Krakow", "Athens", "Riga"),
            *("Bilbao", "Tallinn", "Zagreb", "Dublin", "Antwerp", "Split"),
        ),
        statements=(
            "I visited {v} for a few days, and my feet still hurt.",
            "I got to visit {v} for the first time. Such a beautiful city!",
            "We visited {v} and it rained, but I'd go back at once.",
            "I'm just back home, I visited {v} with an old friend.",
            "Two days off, so I visited {v} on a whim.",
        ),
        questions=("Which cities has {who} visited?", "What cities did {who} visit?"),
        paraphrases=("Where has {who} been travelling?", "What places has {who} seen on holiday?"),
        others=(
            "{rel} visited {v} and brought me a fridge magnet.",
            "{rel} won't stop telling me to visit {v}.",
        ),
    ),
    ListTopic(
        name="books_read",
        tone="plain",
        values=(
            *("Under the Copper Sky", "The Beekeeper's Atlas", "Winter on Platform Nine"),
            *("The Silent Regatta", "Three Doors Down", "A Spoonful of Thunder", "Low Tide"),
            *("The Cartographer's Son", "Good Morning, Stranger", "The Ninth Bell"),
            *("Rooms Without Clocks", "The Violet Hour Club"),
        ),
        statements=(
            "I read {v} in two evenings, I couldn't put the book down.",
            "I've just read {v}. The book is a bit slow at the start.",
            "I was ill in bed and read {v}. At least I had a good book!",
            "I read {v} on the train and nearly missed my stop. What a book!",
            "Somebody lent me a book, {v}, and I read it twice.",
        ),
        questions=("Which books has {who} read?", "What books did {who} read?"),
        paraphrases=("Which novels did {who} get through?", "What titles has {who} finished?"),
        others=(
            "{rel} wants me to read {v}, but the book weighs a ton.",
            "{rel} cried over {v}. It must be quite a book.",
        ),
    ),
    ListTopic(
        name="dishes_cooked",
        tone="happy",
        values=(
            *("beef rendang", "paella", "spinach dumplings", "onion soup", "ratatouille"),
            *("pulled pork", "stuffed peppers", "gnocchi", "fish tacos", "pumpkin curry"),
            *("borscht", "falafel", "cauliflower cheese"),
        ),
        statements=(
            "I cooked {v} from scratch, and nobody complained.",
            "I cooked {v} for friends. It took me the whole day!",
            "I tried to cook {v}. It looked awful but tasted fine.",
            "There was nothing on, so I cooked {v} and danced around a bit.",
            "I cooked {v} last night, and there's enough for a week.",
        ),
        questions=("What has {who} cooked?", "Which dishes did {who} cook?"),
        paraphrases=("Which meals has {who} prepared?", "What came out of {who}'s kitchen?"),
        others=(
            "{rel} cooked {v} and set off the smoke detector.",
            "{rel} is teaching half the street to cook {v}.",
        ),
    ),
    ListTopic(
        name="museums",
        tone="happy",
        values=(
            *("the maritime museum", "the railway museum", "the toy museum", "the salt museum"),
            *("the natural history museum", "the textile museum", "the folk art museum"),
            *("the photography museum", "the science museum", "the aviation museum"),
            *("the chocolate museum", "the design museum"),
        ),
        statements=(
            "I went to {v}, and I had it all to myself.",
            "I finally made it to {v}. Worth every penny!",
            "I dragged everybody to {v} and even the kids liked it.",
            "It was pouring, so I hid in {v} for three hours.",
            "There's a new wing at {v}. I went to see it.",
        ),
        questions=("Which museums has {who} been to?", "What museums did {who} go to?"),
        paraphrases=("Where did {who} look at exhibits?", "What galleries has {who} toured?"),
        others=(
            "{rel} sells tickets at {v} now.",
            "{rel} got lost in {v}, of all places.",
        ),
    ),
    ListTopic(
        name="repairs",
        tone="happy",
        values=(
            *("the kitchen tap", "the garden gate", "the toaster", "the bathroom light"),
            *("the letterbox", "the washing machine", "the back door", "the shed roof"),
            *("the doorbell", "the coffee grinder", "the bookcase", "the sewing machine"),
        ),
        statements=(
            "I fixed {v} with my own two hands!",
            "I spent the morning trying to fix {v}, and it works again.",
            "You'd be proud of me, I fixed {v} without calling anybody.",
            "I fixed {v}, and it only took me four attempts.",
            "I watched a video and then fixed {v} myself.",
        ),
        questions=("What has {who} fixed?", "Which things did {who} fix?"),
        paraphrases=("What household objects has {who} repaired?", "What did {who} mend?"),
        others=(
            "{rel} fixed {v} with nothing but tape.",
            "{rel} paid a fortune to have {v} fixed.",
        ),
    ),
    ListTopic(
        name="sports_tried",
        tone="happy",
        values=(
            *("kayaking", "fencing", "curling", "badminton", "snowboarding", "judo", "rowing"),
            *("handball", "trampolining", "paddle tennis", "ice skating", "surfing"),
        ),
        statements=(
            "I tried {v}, and I can barely move today.",
            "I tried {v} with some people from the office. So much fun!",
            "I finally tried {v}, and I wasn't even the worst.",
            "Someone had a voucher, so I tried {v}. Never again!",
            "I tried {v} today, and the instructor was very patient.",
        ),
        questions=("Which sports has {who} tried?", "What sports has {who} tried so far?"),
        paraphrases=(
            "Which athletic activities has {who} had a go at?",
            "What exercise has {who} given a chance?",
        ),
        others=(
            "{rel} tried {v} and ended up with a sprained wrist.",
            "{rel} tried {v} and now wants to drag all of us along.",
        ),
    ),
)
