"""Small talk of the synthetic chats: short exchanges without any fact that a question is about.

A thread is a list of turns by alternating speakers; each turn is a choice of wordings. Slots in
braces are drawn from `FILLERS` once per thread, so that a reply can take up what was said.
"""

from __future__ import annotations

FILLERS: dict[str, tuple[str, ...]] = {
    "weather": (
        *("grey", "windy", "foggy", "freezing", "far too hot", "sticky", "drizzly", "icy"),
        *("gloriously sunny", "stormy", "mild", "all over the place"),
    ),
    "chore": (
        *("the ironing", "the dishes", "the tax forms", "the windows", "the recycling"),
        *("the vacuuming", "the laundry", "a pile of e-mails", "the paperwork", "the shopping"),
    ),
    "snack": (
        *("crisps", "toast", "leftover pizza", "a banana", "biscuits", "cold noodles", "grapes"),
        *("popcorn", "a cheese sandwich", "far too much chocolate", "cereal", "olives"),
    ),
    "lost": (
        *("my keys", "my umbrella", "my glasses", "one of my gloves", "my charger", "my scarf"),
        *("the remote control", "my wallet", "my good pen", "my train pass"),
    ),
    "place": (
        *("under the sofa", "in the fridge", "in my coat pocket", "behind the curtain"),
        *("on top of the wardrobe", "in the laundry basket", "in the bread bin", "in the hallway"),
    ),
    "noise": (
        *("a drill", "a lawnmower", "somebody's radio", "a barking dog", "a car horn"),
        *("a leaf blower", "church bells", "a rubbish truck", "two cats fighting", "fireworks"),
    ),
    "transport": ("bus", "train", "tram", "lift", "ferry", "underground"),
    "delay": (
        *(
            "twenty minutes",
            "half an hour",
            "an hour",
            "forty minutes",
            "ages",
            "what felt like days",
        ),
    ),
    "ache": ("back", "neck", "knee", "left shoulder", "head", "throat", "big toe"),
    "plan": (
        *("nothing at all", "a long walk", "an early night", "tidying the cellar", "a picnic"),
        *("a lazy morning", "catching up on sleep", "watching the rain", "a barbecue"),
    ),
    "gadget": ("phone", "laptop", "printer", "router", "kettle", "heating", "television", "tablet"),
    "season": ("spring", "summer", "autumn", "winter"),
    "show": (
        *("a quiz show", "a baking contest", "a crime series", "a nature programme"),
        *("a talent show", "an old western", "a cooking show", "a programme about trains"),
    ),
    "feeling": ("tired", "restless", "cheerful", "sleepy", "a bit flat", "rather proud", "hungry"),
    "queue": ("bakery", "post office", "pharmacy", "supermarket", "town hall", "hairdresser's"),
}

Thread = tuple[tuple[str, ...], ...]

THREADS: tuple[Thread, ...] = (
    (
        ("It's {weather} outside today.", "The weather is {weather} again, can you tell?"),
        ("Same here, {weather} all day long.", "Here it changes every ten minutes."),
        ("Well, we can't change it.", "I've stopped trusting the forecast."),
    ),
    (
        ("I've been putting off {chore} for days.", "Guess who still hasn't done {chore}?"),
        ("Oh, I know that feeling.", "Just put some music on and get it over with."),
        ("Easier said than done!", "You're right. Tomorrow, definitely tomorrow."),
    ),
    (
        ("I'm having {snack} while we talk, sorry.", "Don't mind the noise, I'm having {snack}."),
        ("Now I want some too.", "At this hour? Good choice."),
    ),
    (
        ("I lost {lost} again this morning.", "I spent half the day looking for {lost}."),
        ("Did you look {place}?", "Have you checked {place}?"),
        ("First place I looked. Nothing.", "Not there either, would you believe it."),
        ("Classic.", "These things have legs, I swear."),
    ),
    (
        ("Can you hear that? There's {noise} outside.", "I woke up because of {noise}."),
        ("Poor you! Close the window and count to ten.", "I wouldn't have the patience for that."),
    ),
    (
        ("The {transport} was stuck for {delay}.", "I waited {delay} for the {transport}."),
        ("And did anybody say why?", "Did they at least apologise?"),
        ("Not a word. We all just stared at our phones.", "No, nobody said anything. Typical!"),
    ),
    (
        ("My {ache} has been hurting since I got up.", "I slept badly and now my {ache} hurts."),
        ("You should stretch more, you know.", "Ouch. A warm bath might help."),
        ("Yes, doctor!", "I'll try that, thanks."),
    ),
    (
        ("What are your plans for the weekend?", "Anything planned for your days off?"),
        ("So far, {plan}.", "If it were up to me, {plan}."),
        ("That sounds perfect to me.", "You deserve it."),
    ),
    (
        ("My {gadget} is acting up again.", "The {gadget} and I are no longer on speaking terms."),
        ("Have you tried switching it off and on?", "Maybe it's time for a new one."),
        ("Three times. It's laughing at me.", "I'd rather shout at this one a bit longer."),
    ),
    (
        ("I can't wait for {season}.", "Is it just me or does {season} come later every year?"),
        ("Give it a few more weeks.", "I say that every year too."),
    ),
    (
        ("I fell asleep in front of {show} last night.", "I ended up watching {show} until late."),
        ("Was it any good?", "And was it worth it?"),
        ("I honestly couldn't tell you.", "Good enough to miss my bedtime."),
    ),
    (
        ("I'm {feeling} today and I don't know why.", "I woke up {feeling}, for no reason."),
        ("Must be the moon.", "It happens. Be kind to yourself."),
        ("I'll blame the moon from now on.", "I'll try. Thanks for saying that."),
    ),
    (
        ("The queue at the {queue} went round the corner.", "I queued at the {queue} for {delay}."),
        ("Everybody must have had the same idea.", "I always pick the slow queue, too."),
    ),
    (
        ("I sat and looked out of the window for an hour.", "I've done nothing useful today."),
        ("It's underrated, if you ask me.", "Good. Some days are for that."),
    ),
    (
        ("I keep waking up at three in the night.", "I hardly slept, my head was too busy."),
        ("Try leaving your phone in another room.", "Warm milk! It's an old trick, but still."),
        ("I'm willing to try anything.", "I'll give it a go tonight."),
    ),
    (
        ("How was your day, really?", "Be honest, how was your week?"),
        ("Long, but not bad.", "Better than the one before, at least."),
        ("I'll take that as a good sign.", "Small victories!"),
    ),
    (
        ("Thanks for listening the other day.", "I never thanked you for last time."),
        ("Any time, you know that.", "Don't even mention it."),
    ),
    (
        ("We should meet up again soon.", "When are we finally going to see each other?"),
        ("Yes! Let's find a date.", "As soon as things calm down here, I promise."),
        ("I'll look at my calendar.", "You always say that, but I believe you."),
    ),
    (
        ("You wouldn't believe the mess in here.", "I tidied up and now I can't find anything."),
        ("A tidy home is a sign of a dull life.", "Take a picture, I want to see it."),
        ("You're no help at all!", "I knew I could count on you."),
    ),
    (
        ("Some stranger held the door for me, how nice.", "A stranger paid me a compliment today."),
        ("There is hope for the world.", "Small things like that can save a day."),
    ),
    (
        ("I burnt the toast and told nobody.", "I put salt into my coffee this morning."),
        ("Did anybody see it?", "I would have paid to watch that."),
        ("Only you know, so keep quiet.", "The whole house knows, because I yelled."),
    ),
    (
        ("I've been meaning to ask how you're feeling.", "Are you feeling better than last time?"),
        ("Much better, thank you.", "Up and down, but mostly up."),
        ("I'm relieved.", "Glad to hear it."),
    ),
    (
        ("Why are Mondays so long?", "Why does time slow down on afternoons like this?"),
        ("It's a well-known mystery.", "Because you keep looking at the clock."),
    ),
    (
        ("I can't decide whether to cut my hair.", "I'm thinking about a new haircut."),
        ("Do it! Hair grows back.", "Sleep on it for a week."),
        ("I'm too much of a coward.", "That's what I'll do."),
    ),
    (
        ("Somebody took my parking spot, again.", "Somebody keeps stealing my newspaper."),
        ("The nerve of some people!", "Leave a very polite, very angry note."),
        ("I'm drafting the note in my head already.", "I'd only feel bad about it later."),
    ),
    (
        ("I laughed so hard today that I cried.", "I had the giggles in a very serious meeting."),
        ("What happened?", "Now you have to tell me."),
        ("You had to be there, I'm afraid.", "It won't be funny if I explain it."),
    ),
    (
        ("Everyone around me has a cold.", "Half the people I know are ill at the moment."),
        ("Stay away from them and keep warm.", "It's going around here as well."),
    ),
    (
        ("I bought a plant for the bathroom. It's plastic.", "I bought a lamp I don't need."),
        ("I won't judge.", "We all have our weak moments."),
    ),
    (
        ("The days are going by so fast.", "How is it this late in the year already?"),
        ("I ask myself the same question.", "Somebody must be stealing the weeks."),
    ),
    (
        (
            "The neighbours had a party until four.",
            "Somebody was singing in the stairwell at night.",
        ),
        ("And they didn't invite you?", "Were they at least in tune?"),
        ("The cheek of it!", "Let's say they were enthusiastic."),
    ),
    (
        ("I've run out of clean socks.", "I'm wearing two different socks and only just noticed."),
        ("Start a trend!", "That's a cry for help."),
        ("Nobody has said a word so far.", "I may have to face the laundry."),
    ),
    (
        ("I saw the most amazing sunset.", "The sky was completely pink earlier."),
        ("I missed it, I had the blinds down.", "I saw it too! Wasn't it something?"),
    ),
    (
        ("My phone corrected a message into nonsense.", "I sent a message to the wrong person."),
        ("Oh no. Was it embarrassing?", "Please tell me it wasn't your boss."),
        ("Let's never speak of it again.", "Harmless, luckily."),
    ),
    (
        ("I need a break from screens.", "I'm trying to be online less."),
        ("Says the person typing to me.", "Good idea. Tell me how it goes."),
        ("This doesn't count!", "I've lasted forty minutes so far."),
    ),
    (
        ("There's a spider on my window, quite a pretty one.", "There's a pigeon staring at me."),
        ("Wave at it for me.", "Maybe it wants to join our chat."),
    ),
    (
        ("I'm saving money this month. Well, trying.", "Everything has become so expensive."),
        ("Tell me about it.", "I've stopped looking at the receipts."),
    ),
    (
        ("Do you also talk to yourself?", "I caught myself talking to the kettle."),
        ("As long as nobody answers, you're fine.", "Somebody has to listen, I suppose."),
    ),
    (
        ("I have a song stuck in my head.", "I've been humming the same tune for days."),
        ("Don't tell me which, it's contagious.", "Hum it and I'll guess."),
        ("My lips are sealed.", "You'd never speak to me again."),
    ),
    (
        ("I was so early today that nothing was open.", "I was late for everything today."),
        ("That's not like you.", "Well, that is very much like you."),
        ("I'm a changed person.", "Very funny!"),
    ),
    (
        ("You seem in a good mood.", "You sound cheerful today."),
        ("It must be the fresh air.", "I had a proper nap, that's all."),
        ("Whatever it is, keep doing it.", "Send some of that my way."),
    ),
    (
        ("My to-do list has a to-do list.", "I wrote a list and lost the list."),
        ("Cross off the first thing and call it a day.", "That's one way to be finished."),
    ),
    (
        ("I finally threw out those old boxes.", "I cleared out the cupboard under the stairs."),
        ("Didn't it feel great?", "Did you find any treasures?"),
        ("Only dust and regrets.", "It felt better than I expected."),
    ),
)
