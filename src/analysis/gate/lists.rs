//! English words and phrases by which the gate classifies a turn.

/// Words that acknowledge what was said and add nothing.
pub(super) static ASSENT: &str = "uh-huh uhhuh uh huh mm-hmm mm hmm mhm hm mmm m oh ah ooh aw wow okay ok kay yeah yes yep \
    yup ye right alright all sure fine good great cool nice perfect lovely brilliant sweet exactly absolutely definitely \
    indeed true understood so well and but um uhm er erm you know i see guess mean got it of course fair enough makes sense \
    that's the a to too then there now";
/// Words of denial: an answer with one of them adds something.
pub(super) static DENIAL: &str = "no not never nope none nothing nobody neither don't can't cannot won't didn't doesn't isn't \
    wasn't aren't haven't hasn't couldn't wouldn't shouldn't unable refuse without";
/// Words of requests, promises and reports of completed work.
pub(super) static ACTING: &str = "i'll we'll will please need want must should could can cancel send sent call change fix pay \
    paid refund done let's agree decided promise stop start leave buy give take let try";
/// Courtesies, which occur in every conversation.
pub(super) static COURTESY: &[&str] = &[
    "thank you",
    "thanks",
    "thank you so much",
    "thank you very much",
    "thanks a lot",
    "thanks so much",
    "thank you for calling",
    "thanks for calling",
    "thanks for your help",
    "thank you for your help",
    "thanks for everything",
    "thanks for holding",
    "you're welcome",
    "my pleasure",
    "don't mention it",
    "no problem",
    "bye",
    "goodbye",
    "good bye",
    "have a great day",
    "have a great night",
    "have a great weekend",
    "have a good day",
    "have a good night",
    "have a good evening",
    "have a good weekend",
    "have a good one",
    "have a nice day",
    "have a lovely day",
    "take care",
    "see you",
    "you too",
    "hello",
    "hi",
    "hi there",
    "hey",
    "good morning",
    "good afternoon",
    "good evening",
    "how are you",
    "how can i help you",
    "how can i help you today",
    "how may i help you",
    "how may i help you today",
    "how can i assist you",
    "what can i do for you",
    "is there anything else",
    "anything else",
    "i can help you with",
    "i can help you with that",
    "i can help you with today",
    "i can do for you",
    "no thank you",
    "no thanks",
    "no that's all",
    "that's all",
    "no that will be all",
    "that will be all",
    "that was it",
    "that's it",
    "one moment",
    "one moment please",
    "one second",
    "just a moment",
    "give me a second",
    "let me see",
    "hold on",
    "go ahead",
    "excuse me",
    "pardon",
    "can you repeat that",
    "can you repeat that please",
    "say that again",
];
/// Questions of courtesy: an answer to one of them says nothing about the subject of the call.
pub(super) static CLOSING: &[&str] = &["anything else", "how are you", "repeat that", "say that again", "you there"];
