"""Turns and half turns of the synthetic chats that hold no fact: greetings, reactions, lead-ins."""

from __future__ import annotations

from envs.workloads.chat_text import Tone

GREETINGS = (
    "Hi {other}! Good to hear from you.",
    "Hey {other}, long time no chat!",
    "Hello {other}! Do you have a minute?",
    "{other}! I was just thinking about you.",
    "Hi there! How have you been, {other}?",
    "Good evening, {other}! Are you free to talk?",
    "Hey you! How is everything going?",
    "Hi {other}, are you still up?",
    "Hello again! How was your week?",
    "Hey {other}, I finally have time to write.",
    "Hi {other}! I hope I'm not interrupting anything.",
    "There you are, {other}! I was starting to wonder.",
)

GREETING_REPLIES = (
    "Hi {other}! All good here, thanks. And you?",
    "Hey {other}! I was hoping you would write.",
    "Oh hello! Perfect timing, I just sat down.",
    "Hi! A bit tired, but happy to chat.",
    "Hey! It's been a busy few days, I must say.",
    "{other}! What a nice surprise.",
    "Hello! I'm fine, I can't complain.",
    "Hi {other}! I have all the time in the world tonight.",
    "Hey, good to see your name on my screen!",
    "Hi! Same old, same old. How are things with you?",
    "Hi! I was only staring at the ceiling, so please distract me.",
    "Hello stranger! I'm doing well, thanks.",
)

CLOSINGS = (
    "I have to go, the oven is beeping. Talk soon!",
    "It's getting late, so I'll say good night.",
    "My battery is at two per cent. Speak soon!",
    "I'd better get some sleep. It was lovely chatting!",
    "Somebody is at the door, let's continue another time.",
    "Right, back to reality. Thanks for the chat, {other}!",
    "I need to get ready now, but let's talk again soon.",
    "Okay, I've kept you long enough. Take care, {other}!",
    "My eyes are closing, so this is me signing off.",
    "I promised to make one more call tonight, so I'm off.",
)

CLOSING_REPLIES = (
    "Take care, {other}! Bye!",
    "Sleep well! Until next time.",
    "No worries. Have a good one!",
    "It was good to talk. Bye for now!",
    "Bye {other}! Don't be a stranger.",
    "Speak soon, and look after yourself.",
    "Sure thing. Have a lovely rest of the evening!",
    "Same here. Bye!",
    "All right, good night!",
    "Thanks for listening, {other}. See you!",
)

REACTIONS: dict[Tone, tuple[str, ...]] = {
    "happy": (
        "Oh, that's lovely!",
        "How wonderful!",
        "Nice, I'm glad.",
        "That made me smile.",
        "Brilliant!",
        "That's so you!",
        "No way! That's great.",
        "Wow, I didn't see that coming!",
        "That sounds good to me.",
        "Oh, I like that.",
        "Ha, excellent!",
        "Good for you!",
        "I'm all for it.",
        "Happy to hear that.",
    ),
    "plain": (
        "Oh really? I had no idea.",
        "Interesting! You never mentioned that.",
        "Ha, I can picture it.",
        "That makes sense, actually.",
        "Huh, good to know.",
        "I see! I would never have guessed.",
        "Fair enough.",
        "You learn something every day.",
        "Well, that explains a lot.",
        "Funny, somehow I'm not surprised.",
        "Oh, is that so?",
        "Got it.",
    ),
    "care": (
        "Oh no, I'm sorry to hear that.",
        "Oh dear. Thanks for telling me.",
        "I'll keep that in mind, promise.",
        "That can't be easy.",
        "Good that you said so.",
        "Poor you! I had no idea.",
        "Don't worry, you're not the only one.",
        "Is it very bad? I hope not.",
        "Okay, noted. Let me know if I can help.",
        "Oh, that sounds annoying.",
    ),
}

# How the other speaker hands over to one who has something to state.
PROMPTS = (
    "So, what's new with you?",
    "Any news?",
    "How is life treating you?",
    "I'm all ears if you have something to tell.",
    "What did I miss?",
    "Tell me something I don't know.",
    "What's keeping you busy?",
    "What have you been up to lately?",
    "Surprise me with some news.",
    "What's the latest?",
    "And how is everything else?",
    "Anything I should know?",
    "What's on your mind these days?",
    "And on your side, what's happening?",
    "Come on, tell me something about you.",
    "What's going on in your life?",
    "Is there anything you haven't told me yet?",
    "Your turn: what's new?",
)

# Before a statement that nobody asked for.
LEAD_INS = (
    "Oh, before I forget!",
    "By the way, speaking of nothing in particular.",
    "A little update from me.",
    "So, here's something.",
    "Okay, this is random.",
    "I keep meaning to tell you.",
    "Did I mention this already?",
    "Here's a small thing about me.",
    "Anyway, where was I?",
    "Oh, and there's one more thing.",
    "To change the subject for a second.",
    "While I think of it.",
    "Not sure if this counts as news.",
)

# Before a statement that the listener has just asked for.
ANSWER_LEAD_INS = (
    "Since you ask.",
    "Well, let me think.",
    "Hmm, let me see.",
    "Oh, plenty!",
    "Where do I start?",
    "Okay, there is one thing.",
    "You know me too well.",
    "Nothing big, but here goes.",
)

UPDATE_LEAD_INS = (
    "Remember what I told you the other time? Things have changed.",
    "I have to correct myself.",
    "Small change of circumstances here.",
    "You'll be surprised.",
    "Well, there is some news.",
    "Forget what I said a while ago.",
)

OTHERS_LEAD_INS = (
    "You won't believe this.",
    "I heard a funny thing.",
    "Here's some gossip for you.",
    "Talking of other people.",
    "That reminds me.",
    "Small world, honestly.",
    "A short story for you.",
    "Oh, and another thing.",
)

# After a statement; each fits any of them.
TAILS = (
    "Anyway, that's that.",
    "I thought you might like to know.",
    "Just saying!",
    "There, now you know.",
    "But enough about that.",
    "Make of that what you will.",
)
