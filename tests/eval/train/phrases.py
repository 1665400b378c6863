"""Training data of our own: sentences of calls by template, with labels that follow from the template."""

import itertools
import re

SLOTS = {
    "thing": "bill,card,order,parcel,router,invoice,account,policy,refund,appointment,delivery,contract,password,statement,"
    "payment,flight,booking,ticket,phone,subscription,laptop,prescription,loan,meter,heating,remote,design,report".split(","),
    "part": "screen,address,number,balance,date,button,cable,limit,fee,seat,battery,colour,price,branch,form,warranty".split(","),
    "fault": "broken,late,missing,wrong,damaged,blocked,cancelled,lost,expired,frozen,leaking,empty,too small,too expensive".split(","),
    "when": "tomorrow,on Monday,next week,in November,by Friday,this morning,last night,in two days,at nine,on the third".split(","),
    "place": "Leeds,Mill Lane,the airport,the office,Boston,the kitchen,the branch,my old house,Madrid".split(","),
    "name": "Daniel Okafor,Maria Lopez,Ms. Shah,Tom Becker,Ada,Crystal Minh,Mr. Ito".split(","),
    "number": "four four one,twelve,seventy nine dollars,3348917502,40 euros,oh seven seven,nine thirty,500,B B six".split(","),
    "choice": "savings,checking,debit,credit,the blue one,express,the second one,aisle,by email,in cash,bronze".split(","),
    "doing": "send,cancel,replace,change,check,move,block,refund,transfer,book,order,return,upgrade,repair,renew".split(","),
    "deed": "sent,cancelled,replaced,changed,moved,blocked,refunded,transferred,booked,ordered,upgraded,repaired".split(","),
    "glad": "great,wonderful,fantastic,perfect,amazing,really helpful,excellent,brilliant".split(","),
    "bad": "terrible,ridiculous,unacceptable,awful,really annoying,a disgrace,horrible,very disappointing".split(","),
}

# Neutral sentences, such as those of an agent.
NEUTRAL = """
Thank you for calling, how can I help you? | May I have your {part}, please? | Let me check the {thing} for you.
Can you tell me the {part} of the {thing}? | The {thing} will arrive {when}. | I need to {doing} my {thing}.
I would like to know the {part}. | My name is {name}. | It's {number}. | The {part} is {number}.
Is there anything else I can help you with? | I have {deed} the {thing}. | I can {doing} the {thing} {when}.
Which {part} would you like? | We open at nine. | I bought it {when}. | Could you {doing} the {thing}?
I'll {doing} it {when}. | You can {doing} the {thing} on the website. | What is the {part}? | Okay, one moment please.
I'm calling about my {thing}. | Your {thing} has been {deed}. | The {thing} is in {place}. | Yes, that is right. | No, that's all.
""".replace("\n", "|")
POSITIVE = """
That's {glad}! | That is {glad}, thank you so much! | {glad}, thanks a lot. | You have been {glad}. | I love the new {thing}.
I'm so happy with the {thing}. | The {thing} works, that's {glad}. | Thank you, I really appreciate it. | Oh good, what a relief.
I'm very pleased with how you handled the {thing}. | Best service ever, thank you! | Thanks for your help, have a lovely day!
""".replace("\n", "|")
NEGATIVE = """
That's {bad}. | This is {bad}, I have been waiting for an hour. | The {thing} is {fault} again! | I'm really upset about the {thing}.
I'm not happy with this at all. | Nobody called me back. | My {thing} is {fault} and nobody helps me. | I want to complain about the {thing}.
You promised to {doing} it and you didn't. | That's not good enough. | I'm sick of this {thing}. | Your service is {bad}.
This is the third time that the {thing} is {fault}. | I can't believe you charged me twice. | I want to speak to your manager.
I'm worried about my {thing}. | How could you lose my {thing}? | Why does this keep happening to me? | It still doesn't work.
""".replace("\n", "|")

# Turns that change nothing.
ASSENT = "uh-huh|mm-hmm|okay|yeah|right|yes|sure|mhm|alright|ok|I see|got it|hmm|oh|mm|yep|oh okay|fine|oh right|uh huh|exactly|true|cool|great|good|nice|wow|of course|absolutely|no problem|okay okay|yeah yeah|oh yeah|all right|fair enough|makes sense|perfect|understood"
COURTESY = "thank you|thanks|thanks a lot|thank you so much|thank you very much|you're welcome|bye|bye bye|goodbye|have a great day|have a good one|have a nice day|hello|hi|hi there|good morning|how are you|how can I help you|how may I help you today|what can I do for you|is there anything else I can help you with|anything else|take care|thanks for your help|thank you for calling|thank you for calling have a great day|no thank you|no thanks|no that's all|that's all|no that will be all|that was it|you too|see you|one moment|one moment please|just a moment|let me see|give me a second|hold on|go ahead|sorry|excuse me|pardon|don't mention it|my pleasure|thanks for holding|can you repeat that please|say again|sure I can help you with that|okay I can help you with that"
FRAGMENT = "so|and um|um|uh|so we|but|because|well|and then|I mean|you know|so um|it's just|the|and the|if you|I was|so yeah|we were|but um|I think|and so|that|or|to the|what I|yeah so|you're|cuz"
# Turns that do.
NEWS = """
My {thing} is {fault}. | I need to {doing} my {thing}. | I lost my {thing}. | I want to {doing} it. | Can you {doing} the {thing}?
How much is the {part}? | The {part} is {number}. | It's {number}. | {number} | My name is {name}. | {name} | {name} here.
I'll {doing} the {thing} {when}. | I will {doing} it. | We have {deed} the {thing}. | It has been {deed}. | I bought it {when}.
That's {bad}. | This is {bad}! | I'm not happy with this. | I don't want that. | No, the other {thing}. | From {place}. | To {place}.
The {thing} needs a new {part}. | It should have a {part}. | We should {doing} the {thing}. | I don't have a {thing}. | Which {part}?
Please {doing} it {when}. | Is the {part} {fault}? | There was a problem with the {thing}. | We cannot {doing} the {thing}. | I already {deed} it.
I got the wrong {part}. | Not the {thing}, the {part}. | What about the {part}? | My {part} changed. | {when} | It is {fault}. | I moved to {place}.
I agree, let's {doing} it. | I refuse. | Let's {doing} the {thing}. | Your {thing} is ready. | I'm {name}. | So you {deed} my {thing}? | I'm angry about it.
The {thing} has to be {choice}. | It was the {part}. | Because of the {part}. | Maybe a {part}. | Only the {part}. | I hate the {thing}. | I love the {thing}!
Where is my {thing}? | When will it arrive? | Why was I charged? | Who are you? | Does it include the {part}? | Okay, done, it's {deed}. | I just {deed} it.
""".replace("\n", "|")
# After a question.
ANSWER = "yes|no|yeah|nope|yes please|no I don't|yes I did|not yet|never|maybe|I think so|I don't know|I guess so|not really|yes it is|sure|of course|okay|{choice}|{when}|{number}|{name}|my {thing}|the {part}|{place}|no the {part}|it's {fault}|yes the {thing}|no, never|me neither|sometimes|both|neither|all of them|the same"
QUESTIONS = "Which {part} would you like? | May I have your {part}? | Is the {thing} {fault}? | Did you {doing} the {thing}? | When did you buy the {thing}? | Do you want to {doing} it? | How did you pay? | what is your {part} | can you confirm the {part} | Should I {doing} it? | Are you sure? | Is that right? | do you have the {thing}"
# Before a turn that changes nothing.
STATEMENTS = "The {thing} will be {deed} {when}. | I have {deed} your {thing}. | The {part} of the {thing} is {number}. | my {thing} is {fault} | I'm calling about the {thing} from {place}. | You can {doing} the {thing} with the {part}. | The branch opens at nine. | We should {doing} the {part} first. | I will {doing} it for you. | So the {thing} has a {part}."


def templates(text):
    return [part.strip() for part in text.split("|") if part.strip()]


def filled(template, chance):
    return re.sub(r"\{(\w+)\}", lambda found: chance.choice(SLOTS[found.group(1)]), template)


def spoken(text, chance):
    """The text as people or speech recognition would write it."""
    kind = chance.random()
    if kind < 0.35:
        return re.sub(r"[^\w' -]", "", text).lower()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) or kind < 0.5 else text + "."


def moods(chance, count):
    """Sentences with their sentiment; most are neutral."""
    classes = [("neutral", NEUTRAL)] * 2 + [("positive", POSITIVE), ("negative", NEGATIVE)]
    return [
        (spoken(filled(chance.choice(templates(source)), chance), chance), mood)
        for mood, source in itertools.islice(itertools.cycle(classes), count)
    ]


def idle(chance, before):
    """A turn that changes nothing, after the turn `before`."""
    kind = chance.random()
    if kind < 0.45:
        text = " ".join(chance.choice(templates(ASSENT)) for _ in range(chance.choice([1, 1, 1, 2, 2, 3])))
    elif kind < 0.65:
        text = chance.choice(templates(COURTESY))
        if chance.random() < 0.4:
            text = f"{chance.choice(templates(ASSENT))} {text}"
    elif kind < 0.8:
        text = chance.choice(templates(FRAGMENT))
    else:
        # A repetition of the previous turn, or of its end.
        words = re.sub(r"[^\w' -]", "", before).split()
        part = words[-chance.randint(1, min(4, len(words))) :]
        text = " ".join(part) if chance.random() < 0.5 else f"{chance.choice(templates(ASSENT))} {' '.join(part)}"
    return spoken(text, chance)


def turns(chance, count):
    """The turns before a turn, the turn, and whether it changes something."""
    for _ in range(count):
        earlier = [filled(chance.choice(templates(STATEMENTS)), chance) for _ in range(chance.randint(0, 4))]
        if chance.random() < 0.5:
            last = filled(chance.choice(templates(STATEMENTS)), chance)
            yield [*earlier, last], idle(chance, last), False
        elif chance.random() < 0.35:
            asked = filled(chance.choice(templates(QUESTIONS)), chance)
            yield [*earlier, asked], spoken(filled(chance.choice(templates(ANSWER)), chance), chance), True
        else:
            last = filled(chance.choice(templates(STATEMENTS)), chance)
            text = filled(chance.choice(templates(NEWS)), chance)
            if chance.random() < 0.2:
                text = f"{chance.choice(templates(ASSENT))}, {text}"
            yield [*earlier, last], spoken(text, chance), True
